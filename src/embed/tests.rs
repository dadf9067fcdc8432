//! Unit tests of packing and cutting.
