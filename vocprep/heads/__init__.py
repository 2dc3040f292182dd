"""The TFDet heads over cached embeddings: model, runs, training, scoring, prediction."""
