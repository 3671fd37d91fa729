"""The second choice of engine: llama.cpp's own server, behind a worker of ours.

`engine` is an `aiplayground.serving.engine.Engine` whose answers a `llama-server` computes: the
worker makes the prompt, checks the request and shapes the answer as with the other engine, so that
both give the same. `llama-server` holds one model a process; the worker owns that process.
"""
