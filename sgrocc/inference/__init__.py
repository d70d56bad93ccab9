"""Run exported models without torch: their manifests and the engines that run them."""
