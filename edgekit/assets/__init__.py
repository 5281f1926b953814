"""Files shipped with the package: the default model in its three forms and the demo portrait."""
