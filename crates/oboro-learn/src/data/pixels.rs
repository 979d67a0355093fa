use crate::LearnError;
use image::{ImageDecoder, ImageReader, Limits};
use std::fs::File;
use std::io::{BufRead, BufReader, Seek};
use std::path::Path;

/// What an image may take to decode; images come from strangers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageLimits {
    /// Most pixels of a side.
    pub side: u32,
    /// Most bytes that decoding may allocate.
    pub bytes: u64,
}

impl Default for ImageLimits {
    /// 16,384 pixels a side, 256 MiB.
    fn default() -> Self {
        Self {
            side: 16_384,
            bytes: 256 << 20,
        }
    }
}

/// A decoded image: rows of pixels of one (grey) or three (RGB) bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels {
    /// Pixels of a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Bytes of a pixel: 1 or 3.
    pub channels: u8,
    /// `height * width * channels` bytes.
    pub data: Vec<u8>,
}

impl Pixels {
    /// As three channels; a grey value is repeated.
    #[must_use]
    pub fn into_rgb(self) -> Self {
        if self.channels == 3 {
            return self;
        }
        Self {
            channels: 3,
            data: self.data.iter().flat_map(|&v| [v; 3]).collect(),
            ..self
        }
    }
}

/// Decodes a PNG or JPEG file; transparency is dropped, 16 bits become 8.
///
/// # Errors
/// When the file cannot be opened, is neither, is truncated, or passes the
/// limits.
pub fn decode(path: &Path, limits: &ImageLimits) -> Result<Pixels, LearnError> {
    let file = File::open(path).map_err(|source| LearnError::Read {
        path: path.to_owned(),
        source,
    })?;
    decode_from(BufReader::new(file), limits).map_err(|error| LearnError::Malformed {
        path: path.to_owned(),
        what: error.to_string(),
    })
}

fn decode_from(
    reader: impl BufRead + Seek,
    limits: &ImageLimits,
) -> Result<Pixels, image::ImageError> {
    // By its first bytes: extensions lie in several of the public sets.
    let mut reader = ImageReader::new(reader).with_guessed_format()?;
    let mut allowed = Limits::default();
    allowed.max_image_width = Some(limits.side);
    allowed.max_image_height = Some(limits.side);
    allowed.max_alloc = Some(limits.bytes);
    reader.limits(allowed.clone());
    let mut decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    allowed.check_dimensions(width, height)?;
    allowed.reserve(decoder.total_bytes())?;
    decoder.set_limits(allowed)?;
    let image = image::DynamicImage::from_decoder(decoder)?;
    let grey = !image.color().has_color();
    Ok(Pixels {
        width,
        height,
        channels: if grey { 1 } else { 3 },
        data: if grey {
            image.into_luma8().into_raw()
        } else {
            image.into_rgb8().into_raw()
        },
    })
}
