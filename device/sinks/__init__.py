"""Outputs: files, window, web page, MQTT and webhook, on one engine. Importing this package imports none of them."""
