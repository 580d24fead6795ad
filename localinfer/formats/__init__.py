"""Reading and writing files of models: safetensors, GGUF, tokenizers, packed integers. Decides nothing."""
