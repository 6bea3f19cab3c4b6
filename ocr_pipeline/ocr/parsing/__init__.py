"""From the raw text of a model to markdown and regions. Pure, linear in the text, never raises: the text is hostile."""
