"""The Spatial Expert in torch: what is trained here is exported and runs without torch."""
