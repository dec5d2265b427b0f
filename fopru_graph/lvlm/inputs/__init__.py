"""What a model is asked with: pictures, videos, prompts and their token ids."""
