"""From source rows to the two phase versions that the student is trained on."""
