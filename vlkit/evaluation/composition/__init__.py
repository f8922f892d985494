"""Whether generated images hold what their prompts put together, from detections and answers that are kept in files."""
