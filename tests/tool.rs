//! The tool, from the outside.
