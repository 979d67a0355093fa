//! Images changed at random, so that a network sees each in many ways.

use super::input::cut;
use super::{Input, Pixels};
use crate::LearnError;
use rand_core::Rng;
use serde::{Deserialize, Serialize};

/// How images are changed for training.
///
/// What happens to an image depends on the generator alone. With one of its
/// own for each image that is drawn, threads and resumption do not matter.
///
/// Where a shift or a turn uncovers something, the image's border is
/// repeated: a black corner would be a mark that evaluation never shows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augmentation {
    /// Which part of the image is taken.
    pub crop: Crop,
    /// Mirrored left to right, half of the time; not for characters.
    pub flip: bool,
    /// The largest angle, in degrees, that the image is turned by either way.
    pub turn: f64,
    /// The largest part of its size that the image is made larger or smaller
    /// by.
    pub zoom: f64,
}

/// Which part of an image is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Crop {
    /// What evaluation takes.
    #[default]
    Centre,
    /// The same, shifted by up to this many pixels either way.
    Shifted {
        /// Pixels.
        pixels: usize,
    },
    /// A rectangle of at least this part of the image's area, brought to the
    /// size of the input.
    Resized {
        /// The least part of the area.
        least: f64,
        /// The largest ratio of the rectangle's sides.
        ratio: f64,
    },
}

impl Default for Augmentation {
    /// Nothing is changed.
    fn default() -> Self {
        Self {
            crop: Crop::Centre,
            flip: false,
            turn: 0.0,
            zoom: 0.0,
        }
    }
}

impl Augmentation {
    /// For small images of things: shifts and mirroring.
    #[must_use]
    pub fn things() -> Self {
        Self {
            crop: Crop::Shifted { pixels: 3 },
            flip: true,
            turn: 10.0,
            zoom: 0.1,
        }
    }

    /// For characters: shifts and small turns, no mirroring.
    #[must_use]
    pub fn characters() -> Self {
        Self {
            crop: Crop::Shifted { pixels: 2 },
            flip: false,
            turn: 10.0,
            zoom: 0.1,
        }
    }

    /// For photographs: parts of the image, mirrored.
    #[must_use]
    pub fn photographs() -> Self {
        Self {
            crop: Crop::Resized {
                least: 0.2,
                ratio: 4.0 / 3.0,
            },
            flip: true,
            turn: 0.0,
            zoom: 0.0,
        }
    }

    /// Refuses numbers out of range.
    ///
    /// # Errors
    /// Naming the first.
    pub fn check(&self) -> Result<(), LearnError> {
        let (least, ratio) = match self.crop {
            Crop::Resized { least, ratio } => (least, ratio),
            _ => (1.0, 1.0),
        };
        let checks = [
            (
                (0.0..=180.0).contains(&self.turn),
                "the largest turn",
                self.turn,
                "choose between 0 and 180 degrees",
            ),
            (
                (0.0..=0.5).contains(&self.zoom),
                "the largest zoom",
                self.zoom,
                "choose between 0 and 0.5",
            ),
            (
                (0.01..=1.0).contains(&least),
                "the least part of the area",
                least,
                "choose between 0.01 and 1",
            ),
            (
                (1.0..=4.0).contains(&ratio),
                "the largest ratio of sides",
                ratio,
                "choose between 1 and 4",
            ),
        ];
        match checks.into_iter().find(|(fine, ..)| !fine) {
            Some((_, what, actual, wanted)) => Err(LearnError::Setting {
                what,
                actual: actual.to_string(),
                wanted,
            }),
            None => Ok(()),
        }
    }

    /// An image for training, as [`Input::prepare`] gives it but changed at
    /// random.
    #[must_use]
    pub fn prepare(&self, input: &Input, image: Pixels, rng: &mut impl Rng) -> Vec<f32> {
        let image = match self.crop {
            Crop::Resized { least, ratio } => {
                let image = input.channels_of(image);
                let size = [image.width.max(1), image.height.max(1)];
                let rectangle = rectangle(rng, size, least, ratio);
                cut(image, rectangle, input.side as u32)
            }
            _ => input.centre(image, input.enlarge),
        };
        let change = self.draw(rng);
        if change.is_nothing() {
            return input.normalise(&image);
        }
        change.apply(input, &image)
    }

    fn draw(&self, rng: &mut impl Rng) -> Change {
        let mut shift = || match self.crop {
            Crop::Shifted { pixels } => {
                let reach = pixels as f64;
                (unit(rng) * (2.0 * reach + 1.0)).floor().min(2.0 * reach) - reach
            }
            _ => 0.0,
        };
        let shift = [shift(), shift()];
        Change {
            shift,
            flip: self.flip && unit(rng) < 0.5,
            angle: self.turn.to_radians() * (2.0 * unit(rng) - 1.0),
            scale: 1.0 + self.zoom * (2.0 * unit(rng) - 1.0),
        }
    }
}

/// One draw: where each pixel of the result comes from.
#[derive(Debug, PartialEq)]
struct Change {
    shift: [f64; 2],
    flip: bool,
    angle: f64,
    scale: f64,
}

impl Change {
    fn is_nothing(&self) -> bool {
        self.shift == [0.0; 2] && !self.flip && self.angle == 0.0 && self.scale == 1.0
    }

    fn apply(&self, input: &Input, image: &Pixels) -> Vec<f32> {
        let (side, channels) = (input.side, input.channels);
        let middle = (side as f64 - 1.0) / 2.0;
        // From the result back to the image, about the middle.
        let (sin, cos) = self.angle.sin_cos();
        let (sin, cos) = (sin / self.scale, cos / self.scale);
        let mut out = vec![0.0; input.values()];
        for row in 0..side {
            for column in 0..side {
                let x = column as f64 - middle - self.shift[0];
                let y = row as f64 - middle - self.shift[1];
                let x = if self.flip { -x } else { x };
                let from = [cos * x + sin * y + middle, cos * y - sin * x + middle];
                let corners = Corners::new(from, side);
                for channel in 0..channels {
                    let value = corners.value(&image.data, side, channels, channel);
                    out[channel * side * side + row * side + column] =
                        ((value / 255.0 - input.mean[channel]) / input.deviation[channel]) as f32;
                }
            }
        }
        out
    }
}

/// The four pixels around a place and how far it is between them.
struct Corners {
    x: [usize; 2],
    y: [usize; 2],
    part: [f64; 2],
}

impl Corners {
    fn new(from: [f64; 2], side: usize) -> Self {
        let last = side as f64 - 1.0;
        let between = |place: f64| {
            let place = place.clamp(0.0, last);
            let low = place.floor();
            let next = (low + 1.0).min(last);
            ([low as usize, next as usize], place - low)
        };
        let ((x, across), (y, down)) = (between(from[0]), between(from[1]));
        Self {
            x,
            y,
            part: [across, down],
        }
    }

    fn value(&self, data: &[u8], side: usize, channels: usize, channel: usize) -> f64 {
        let at = |x: usize, y: usize| f64::from(data[(y * side + x) * channels + channel]);
        let [across, down] = self.part;
        let row = |y: usize| at(self.x[0], y) * (1.0 - across) + at(self.x[1], y) * across;
        row(self.y[0]) * (1.0 - down) + row(self.y[1]) * down
    }
}

/// A number from 0 up to 1, which it does not reach.
fn unit(rng: &mut impl Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// A rectangle `[left, top, width, height]` of an image, as torchvision draws
/// it: ten tries, then the largest in the middle that has an allowed ratio.
fn rectangle(rng: &mut impl Rng, [width, height]: [u32; 2], least: f64, ratio: f64) -> [u32; 4] {
    let area = f64::from(width) * f64::from(height);
    for _ in 0..10 {
        let part = area * (least + (1.0 - least) * unit(rng));
        let ratio = (ratio.ln() * (2.0 * unit(rng) - 1.0)).exp();
        let wide = (part * ratio).sqrt().round() as u32;
        let high = (part / ratio).sqrt().round() as u32;
        let place = [unit(rng), unit(rng)];
        if (1..=width).contains(&wide) && (1..=height).contains(&high) {
            let left = (place[0] * f64::from(width - wide + 1)) as u32;
            let top = (place[1] * f64::from(height - high + 1)) as u32;
            return [left, top, wide, high];
        }
    }
    let longest = |short: u32| ((f64::from(short) * ratio).round() as u32).max(1);
    let (wide, high) = (width.min(longest(height)), height.min(longest(width)));
    [(width - wide) / 2, (height - high) / 2, wide, high]
}
