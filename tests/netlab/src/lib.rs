//! Network laboratory.
