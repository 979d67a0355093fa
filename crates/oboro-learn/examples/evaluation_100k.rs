//! Times one exact evaluation of 100,000 x 512 embeddings for each score.
//!
//! `cargo run --release -p oboro-learn --example evaluation_100k [rows] [score]`

use oboro_learn::evaluation::{Items, Options, Score, evaluate};
use oboro_learn::geometry::Ball;
use oboro_vectors::Matrix;
use std::time::Instant;

const DIMENSION: usize = 512;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rows = match std::env::args().nth(1) {
        Some(rows) => rows.parse()?,
        None => 100_000,
    };
    let mut state = 1u64;
    let mut next = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    // 50 items around one direction a class.
    let classes = usize::div_ceil(rows, 50);
    let centres: Vec<f32> = (0..classes * DIMENSION).map(|_| next()).collect();
    let labels: Vec<u32> = (0..rows).map(|row| (row % classes) as u32).collect();
    let mut values = Vec::with_capacity(rows * DIMENSION);
    for &label in &labels {
        let centre = &centres[label as usize * DIMENSION..][..DIMENSION];
        values.extend(centre.iter().map(|c| c + 3.0 * next()));
    }
    let euclidean = Matrix::new(DIMENSION, values)?;
    let ball = Ball::new(0.1f32)?;
    let mut points = Vec::with_capacity(rows * DIMENSION);
    for row in &euclidean {
        let short: Vec<f32> = row.iter().map(|v| v * 0.05).collect();
        points.extend(ball.exp0(&Ball::clip(&short, 2.3)));
    }
    let hyperbolic = Matrix::new(DIMENSION, points)?;
    let items = Items::both(&euclidean, &hyperbolic, &labels)?;
    let fused = Score::Fused {
        curvature: 0.1,
        euclidean_temperature: 1.0,
        hyperbolic_temperature: 4.6,
        lambda: 1.0,
    };
    let wanted = std::env::args().nth(2);
    for score in [Score::Cosine, Score::Hyperbolic { curvature: 0.1 }, fused] {
        if wanted.as_deref().is_some_and(|name| name != score.name()) {
            continue;
        }
        let start = Instant::now();
        let report = evaluate(&items, None, &score, &Options::default())?;
        print!("{report}");
        println!("  {:.1} s", start.elapsed().as_secs_f64());
    }
    Ok(())
}
