"""The generated dataset: abstract scenes in the official layout of VOC 2010 and Pascal Context."""
