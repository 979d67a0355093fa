use crate::VectorsError;
use std::path::Path;

/// The kinds of file, told apart by extension (upper or lower case).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// `.fvecs`
    Fvecs,
    /// `.bvecs`
    Bvecs,
    /// `.ivecs`
    Ivecs,
    /// `.npy`
    Npy,
    /// `.fbin`
    Fbin,
    /// `.u8bin`
    U8bin,
    /// `.parquet`
    Parquet,
    /// `.arrow`, `.feather` (version 2), `.arrows`: a file or a stream of
    /// Arrow's, told apart by its first bytes.
    Arrow,
}

impl Format {
    /// The kind that `path`'s extension names.
    ///
    /// # Errors
    /// [`VectorsError::UnknownFormat`] for any other extension or none.
    pub fn of(path: &Path) -> Result<Self, VectorsError> {
        let extension = path
            .extension()
            .and_then(|e| e.to_str())
            .map(str::to_ascii_lowercase);
        match extension.as_deref() {
            Some("fvecs") => Ok(Self::Fvecs),
            Some("bvecs") => Ok(Self::Bvecs),
            Some("ivecs") => Ok(Self::Ivecs),
            Some("npy") => Ok(Self::Npy),
            Some("fbin") => Ok(Self::Fbin),
            Some("u8bin") => Ok(Self::U8bin),
            Some("parquet") => Ok(Self::Parquet),
            Some("arrow" | "arrows" | "feather") => Ok(Self::Arrow),
            _ => Err(VectorsError::UnknownFormat {
                path: path.to_owned(),
            }),
        }
    }
}
