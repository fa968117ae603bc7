"""What a network looks for: kernels, maps, patches, dreams, embeddings. Room explain; floor 1."""
