"""Building the projection anew from the topic, as the file's writer, while the old tables serve reads."""
