"""Folders of images that are searched by text in any language, or by an image."""
