//! What the fuzz targets hold the product to: small, slow readings of the same texts that share no code with it.

pub mod decimal;
pub mod instant;
pub mod json;
pub mod service;
