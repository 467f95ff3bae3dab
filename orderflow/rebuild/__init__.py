"""Building the projection anew from the topic, as the one writer of its file."""
