"""Where frames come from: cameras, files, streams and the bundled demo clip."""
