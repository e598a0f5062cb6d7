"""PromQL: parser, evaluator and the storage protocol it reads from. `engine.Engine` is the way in."""
