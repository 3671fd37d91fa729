"""llamacpp-backend: GGUF language models on llama.cpp, through llama-cpp-python."""
