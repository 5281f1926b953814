"""The Pi-side runtime: frame sources, face detectors, classifier, pipeline, sinks and meters."""
