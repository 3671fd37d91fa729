"""AI Playground model pack: the guide, a tiny language model that answers newcomers' questions.

The package holds one GGUF file and the hook that names it; the model is called ``guide``.
"""
