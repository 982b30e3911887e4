//! What the fuzz targets hold the programs against.

pub mod bench;
pub mod reference;
pub mod spelling;
