"""Events, state and health sent to an MQTT broker, and commands received from it."""
