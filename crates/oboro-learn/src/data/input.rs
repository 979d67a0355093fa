//! Images as a network takes them.

use super::{Dataset, ImageLimits, Pixels};
use crate::LearnError;
use image::imageops::{FilterType, crop_imm, resize};
use image::{ImageBuffer, Luma, Pixel, Rgb};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// What a network is given: square images of one size, normalised.
///
/// ```
/// use oboro_learn::data::Input;
/// let input = Input::grey(28);
/// let settings = serde_json::to_string(&input).unwrap();
/// assert_eq!(serde_json::from_str::<Input>(&settings).unwrap(), input);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Values of a pixel: 1 for grey images, 3 for colour.
    pub channels: usize,
    /// Pixels of a side.
    pub side: usize,
    /// How much larger the image is made than `side` before its centre is cut
    /// out; 256/224 is usual for photographs, 1 keeps the whole shorter side.
    pub enlarge: f64,
    /// The mean of each channel, where black is 0 and white is 1.
    pub mean: Vec<f64>,
    /// The standard deviation of each channel.
    pub deviation: Vec<f64>,
}

/// Sums of a channel's values, exact and in any order the same.
#[derive(Clone, Copy, Default)]
struct Sums {
    count: u64,
    sum: u64,
    squares: u64,
}

impl Input {
    /// Grey images, black at -1 and white at 1.
    #[must_use]
    pub fn grey(side: usize) -> Self {
        Self {
            channels: 1,
            side,
            enlarge: 1.0,
            mean: vec![0.5],
            deviation: vec![0.5],
        }
    }

    /// Colour images, black at -1 and white at 1.
    #[must_use]
    pub fn colour(side: usize) -> Self {
        Self {
            channels: 3,
            side,
            enlarge: 1.0,
            mean: vec![0.5; 3],
            deviation: vec![0.5; 3],
        }
    }

    /// Photographs, normalised with ImageNet's statistics, as most pretrained
    /// weights expect them.
    #[must_use]
    pub fn imagenet(side: usize) -> Self {
        Self {
            channels: 3,
            side,
            enlarge: 256.0 / 224.0,
            mean: vec![0.485, 0.456, 0.406],
            deviation: vec![0.229, 0.224, 0.225],
        }
    }

    /// With the mean and deviation of a data set's pixels instead; takes as
    /// long as a pass over the data.
    ///
    /// # Errors
    /// When an image cannot be read.
    pub fn measured(mut self, dataset: &Dataset, limits: &ImageLimits) -> Result<Self, LearnError> {
        self.check()?;
        let sums = (0..dataset.len())
            .into_par_iter()
            .map(|index| {
                let image = self.channels_of(dataset.image(index, limits)?);
                let mut sums = [Sums::default(); 3];
                for pixel in image.data.chunks_exact(self.channels) {
                    for (sums, &value) in sums.iter_mut().zip(pixel) {
                        sums.count += 1;
                        sums.sum += u64::from(value);
                        sums.squares += u64::from(value) * u64::from(value);
                    }
                }
                Ok::<_, LearnError>(sums)
            })
            .try_reduce(
                || [Sums::default(); 3],
                |mut all, some| {
                    for (all, some) in all.iter_mut().zip(some) {
                        all.count += some.count;
                        all.sum += some.sum;
                        all.squares += some.squares;
                    }
                    Ok(all)
                },
            )?;
        for (channel, sums) in sums.iter().take(self.channels).enumerate() {
            let count = (sums.count as f64).max(1.0);
            let mean = sums.sum as f64 / count;
            let variance = (sums.squares as f64 / count - mean * mean).max(0.0);
            self.mean[channel] = mean / 255.0;
            // One grey value everywhere: nothing to divide by.
            self.deviation[channel] = (variance.sqrt() / 255.0).max(1.0 / 255.0);
        }
        Ok(self)
    }

    /// An image for evaluation: the shorter side brought to `side * enlarge`,
    /// bilinear with as wide a filter as shrinking needs, the centre cut out,
    /// normalised; channel after channel, row after row.
    #[must_use]
    pub fn prepare(&self, image: Pixels) -> Vec<f32> {
        self.normalise(&self.centre(image, self.enlarge))
    }

    /// Values that an image has.
    #[must_use]
    pub fn values(&self) -> usize {
        self.channels * self.side * self.side
    }

    /// Refuses what no network can be given.
    pub(crate) fn check(&self) -> Result<(), LearnError> {
        let refuse = |what, actual: String, wanted| {
            Err(LearnError::Setting {
                what,
                actual,
                wanted,
            })
        };
        if !matches!(self.channels, 1 | 3) {
            return refuse(
                "the number of channels of the input",
                self.channels.to_string(),
                "choose 1 for grey images or 3 for colour",
            );
        }
        if !(1..=1024).contains(&self.side) {
            return refuse(
                "the side of the input",
                self.side.to_string(),
                "choose between 1 and 1024 pixels",
            );
        }
        if !(1.0..=2.0).contains(&self.enlarge) {
            return refuse(
                "the enlargement before the centre is cut out",
                self.enlarge.to_string(),
                "choose between 1 and 2",
            );
        }
        for (what, values) in [
            ("the number of means of channels", &self.mean),
            ("the number of deviations of channels", &self.deviation),
        ] {
            if values.len() != self.channels {
                return refuse(what, values.len().to_string(), "give one for each channel");
            }
        }
        if let Some(mean) = self.mean.iter().find(|mean| !mean.is_finite()) {
            return refuse("a mean", mean.to_string(), "give a finite number");
        }
        if let Some(deviation) = self
            .deviation
            .iter()
            .find(|&&deviation| !(deviation.is_finite() && deviation > 0.0))
        {
            return refuse("a deviation", deviation.to_string(), "give one above 0");
        }
        Ok(())
    }

    /// The image in as many channels as the network takes.
    pub(super) fn channels_of(&self, image: Pixels) -> Pixels {
        match (self.channels, image.channels) {
            (3, _) => image.into_rgb(),
            (_, 3) => Pixels {
                channels: 1,
                data: image.data.chunks_exact(3).map(luma).collect(),
                ..image
            },
            _ => image,
        }
    }

    /// The centre of an image whose shorter side is brought to
    /// `side * enlarge`.
    pub(super) fn centre(&self, image: Pixels, enlarge: f64) -> Pixels {
        let image = self.channels_of(image);
        let side = self.side as u32;
        let (width, height) = (image.width.max(1), image.height.max(1));
        let shorter = ((self.side as f64 * enlarge).round() as u32).max(side);
        // What of the image, in its own pixels, becomes a square of `side`.
        let scale = f64::from(width.min(height)) / f64::from(shorter);
        if width.min(height) == shorter && shorter == side {
            let (left, top) = ((width - side) / 2, (height - side) / 2);
            return cut(image, [left, top, side, side], side);
        }
        let longer = |length: u32| ((f64::from(length) / scale) as u32).max(shorter);
        let (wide, high) = if width <= height {
            (shorter, longer(height))
        } else {
            (longer(width), shorter)
        };
        let whole = resized(image, [wide, high]);
        let offset = |length: u32| (f64::from(length - side) / 2.0).round_ties_even() as u32;
        cut(whole, [offset(wide), offset(high), side, side], side)
    }

    /// As numbers, channel after channel.
    pub(super) fn normalise(&self, image: &Pixels) -> Vec<f32> {
        let pixels = self.side * self.side;
        let mut out = vec![0.0; self.values()];
        for channel in 0..self.channels {
            let (mean, deviation) = (self.mean[channel], self.deviation[channel]);
            let table: Vec<f32> = (0..=255u8)
                .map(|value| ((f64::from(value) / 255.0 - mean) / deviation) as f32)
                .collect();
            let values = image.data.iter().skip(channel).step_by(self.channels);
            for (out, &value) in out[channel * pixels..][..pixels].iter_mut().zip(values) {
                *out = table[usize::from(value)];
            }
        }
        out
    }
}

/// ITU-R BT.601.
fn luma(rgb: &[u8]) -> u8 {
    let [r, g, b] = [rgb[0], rgb[1], rgb[2]].map(u32::from);
    ((299 * r + 587 * g + 114 * b + 500) / 1000) as u8
}

/// A rectangle `[left, top, width, height]` of an image, brought to a square.
pub(super) fn cut(image: Pixels, rectangle: [u32; 4], side: u32) -> Pixels {
    let [left, top, width, height] = rectangle;
    if [width, height] == [image.width, image.height] {
        return resized(image, [side, side]);
    }
    let part = through(
        image,
        |channels, width_in, height_in, data| match channels {
            3 => crop::<Rgb<u8>>(width_in, height_in, data, rectangle),
            _ => crop::<Luma<u8>>(width_in, height_in, data, rectangle),
        },
    );
    debug_assert!(left.checked_add(width).is_some() && top.checked_add(height).is_some());
    resized(part, [side, side])
}

/// Brought to a width and height.
fn resized(image: Pixels, size: [u32; 2]) -> Pixels {
    if size == [image.width, image.height] {
        return image;
    }
    through(image, |channels, width, height, data| match channels {
        3 => scale::<Rgb<u8>>(width, height, data, size),
        _ => scale::<Luma<u8>>(width, height, data, size),
    })
}

type Raw = (u32, u32, Vec<u8>);

fn through(image: Pixels, change: impl FnOnce(u8, u32, u32, Vec<u8>) -> Raw) -> Pixels {
    let channels = image.channels;
    let (width, height, data) = change(channels, image.width, image.height, image.data);
    Pixels {
        width,
        height,
        channels,
        data,
    }
}

fn crop<P: Pixel<Subpixel = u8> + 'static>(
    width: u32,
    height: u32,
    data: Vec<u8>,
    [left, top, wide, high]: [u32; 4],
) -> Raw {
    let image = buffer::<P>(width, height, data);
    let part = crop_imm(&image, left, top, wide, high).to_image();
    (part.width(), part.height(), part.into_raw())
}

fn scale<P: Pixel<Subpixel = u8> + 'static>(
    width: u32,
    height: u32,
    data: Vec<u8>,
    [wide, high]: [u32; 2],
) -> Raw {
    let image = buffer::<P>(width, height, data);
    let scaled = resize(&image, wide, high, FilterType::Triangle);
    (scaled.width(), scaled.height(), scaled.into_raw())
}

/// Pixels have as many bytes as they say; black stands in where not.
fn buffer<P: Pixel<Subpixel = u8> + 'static>(
    width: u32,
    height: u32,
    data: Vec<u8>,
) -> ImageBuffer<P, Vec<u8>> {
    ImageBuffer::from_raw(width, height, data).unwrap_or_else(|| ImageBuffer::new(width, height))
}
