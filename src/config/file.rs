//! What is typed: the TOML tree, walked with every value's place kept.
