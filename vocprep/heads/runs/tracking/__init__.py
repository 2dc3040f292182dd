"""Where the metrics of a training go beside its log: event files of TensorBoard, runs of MLflow."""
