"""PromptCoT synthesis: concepts → problems → judges → solutions → verification."""
