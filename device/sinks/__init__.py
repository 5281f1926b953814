"""Sinks: files, window, web page, MQTT and webhook. Importing this package imports none of them."""
