//! The facts of the pipeline: ids, events, job specs, stages, the catalogue
