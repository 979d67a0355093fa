//! Values of independent implementations: geoopt, pytorch-metric-learning and
//! scikit-learn, written by `scripts/oracles/make_fixtures.py`.
#![allow(clippy::unwrap_used)]

use oboro_learn::evaluation::{Items, Options, Report, Score, evaluate};
use oboro_learn::evaluation::{nearest, normalized_mutual_information};
use oboro_learn::geometry::{Ball, ancestor_depth, hyphc_term};
use oboro_vectors::Matrix;
use serde_json::Value;

fn fixture(name: &str) -> Value {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let text = std::fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    let list = value.as_array().unwrap().iter();
    list.map(|v| v.as_f64().unwrap()).collect()
}

fn labels(value: &Value) -> Vec<u32> {
    let list = value.as_array().unwrap().iter();
    list.map(|v| v.as_u64().unwrap() as u32).collect()
}

fn matrix(value: &Value) -> Matrix<f32> {
    let rows: Vec<Vec<f64>> = value.as_array().unwrap().iter().map(numbers).collect();
    let values = rows.iter().flatten().map(|&v| v as f32).collect();
    Matrix::new(rows[0].len(), values).unwrap()
}

#[track_caller]
fn close(actual: f64, expected: f64, relative: f64) {
    assert!(
        (actual - expected).abs() <= relative * expected.abs().max(1e-300),
        "{actual} is not {expected}"
    );
}

#[track_caller]
fn all_close(actual: &[f64], expected: &[f64], relative: f64) {
    assert_eq!(actual.len(), expected.len());
    let scale = expected.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    for (a, e) in actual.iter().zip(expected) {
        assert!((a - e).abs() <= relative * scale, "{actual:?} {expected:?}");
    }
}

#[test]
fn the_ball_is_geoopts() {
    let fixture = fixture("poincare");
    for pair in fixture["pairs"].as_array().unwrap() {
        let field = |name: &str| numbers(&pair[name]);
        let ball = Ball::new(pair["c"].as_f64().unwrap()).unwrap();
        let (x, y) = (field("x"), field("y"));
        all_close(&ball.exp0(&field("u")), &x, 1e-13);
        all_close(&ball.exp0(&field("v")), &y, 1e-13);
        // To the digits that the points themselves carry.
        let expected = pair["distance"].as_f64().unwrap();
        let (distance, gradient) = ball.distance_and_gradient(&x, &y);
        close(distance, expected, 1e-9);
        all_close(&gradient, &field("gradient"), 1e-9);

        let narrow = |v: &[f64]| v.iter().map(|&v| v as f32).collect::<Vec<f32>>();
        let (u, v) = (narrow(&field("u")), narrow(&field("v")));
        let ball = Ball::new(pair["c"].as_f64().unwrap() as f32).unwrap();
        let (x, y) = (ball.exp0(&u), ball.exp0(&v));
        if expected > 0.01 {
            close(f64::from(ball.distance(&x, &y)), expected, 2e-5);
        }
    }
}

#[test]
fn the_ancestor_is_the_nearest_point_of_the_geodesic() {
    let ball = Ball::new(1.0).unwrap();
    for tree in fixture("poincare")["ancestors"].as_array().unwrap() {
        let depth = ancestor_depth(&ball, &numbers(&tree["a"]), &numbers(&tree["b"]));
        close(depth, tree["depth"].as_f64().unwrap(), 1e-12);
    }
}

#[test]
fn the_tree_term_is_torchs() {
    let fixture = fixture("hyperbolic");
    let ball = Ball::new(1.0).unwrap();
    let mut seen = 0;
    for case in fixture.as_array().unwrap() {
        if !case["name"].as_str().unwrap().starts_with("hyphc/") {
            continue;
        }
        seen += 1;
        let rows = |name: &str| -> Vec<Vec<f64>> {
            let list = case["inputs"][name].as_array().unwrap().iter();
            list.map(numbers).collect()
        };
        let (i, j, k) = (rows("i"), rows("j"), rows("k"));
        let temperature = case["parameters"]["temperature"].as_f64().unwrap();
        let similarities = case["similarities"].as_array().unwrap();
        let total: f64 = (0..i.len())
            .map(|n| {
                let s = numbers(&similarities[n]);
                hyphc_term(
                    &ball,
                    [&i[n], &j[n], &k[n]],
                    [s[0], s[1], s[2]],
                    temperature,
                )
            })
            .sum();
        close(
            total / i.len() as f64,
            case["value"].as_f64().unwrap(),
            1e-12,
        );
    }
    assert_eq!(seen, 2);
}

#[test]
fn the_metrics_are_those_of_pytorch_metric_learning() {
    let fixture = fixture("metrics");
    let (rows, queries) = (matrix(&fixture["rows"]), matrix(&fixture["queries"]));
    let (y, yq) = (labels(&fixture["labels"]), labels(&fixture["query_labels"]));
    let gallery = Items::euclidean(&rows, &y).unwrap();
    let apart = Items::euclidean(&queries, &yq).unwrap();
    for score in [Score::Euclidean, Score::Cosine] {
        let check = |report: Report, oracle: &Value| {
            let value = |name: &str| oracle[name].as_f64().unwrap();
            close(report.recall[0].value, value("precision_at_1"), 1e-12);
            close(report.ndcg[0].value, value("precision_at_1"), 1e-12);
            close(report.r_precision, value("r_precision"), 1e-12);
            close(report.map_at_r, value("mean_average_precision_at_r"), 1e-12);
        };
        let oracle = &fixture[score.name()];
        let options = Options::default();
        let alone = evaluate(&gallery, None, &score, &options).unwrap();
        assert_eq!((alone.queries, alone.skipped), (90, 1));
        assert_eq!(alone.per_query.iter().flatten().count(), 90);
        check(alone, &oracle["alone"]);
        let both = evaluate(&apart, Some(&gallery), &score, &options).unwrap();
        assert_eq!((both.queries, both.skipped, both.gallery), (28, 0, 91));
        check(both, &oracle["apart"]);
    }
    let nmi = normalized_mutual_information(&labels(&fixture["assignment"]), &y).unwrap();
    close(nmi, fixture["nmi"].as_f64().unwrap(), 1e-12);
}

#[test]
fn an_index_ranks_lifted_points_as_hyperbolic_distance_does() {
    let fixture = fixture("metrics");
    let ball = Ball::new(0.1f32).unwrap();
    let rows = matrix(&fixture["rows"]);
    let map = |f: &dyn Fn(&[f32]) -> Vec<f32>| {
        let all: Vec<Vec<f32>> = rows.iter().map(f).collect();
        Matrix::new(all[0].len(), all.concat()).unwrap()
    };
    let points = map(&|row| ball.exp0(&Ball::clip(row, 2.3)));
    let lifted = map(&|row| ball.lift(&ball.exp0(&Ball::clip(row, 2.3))));
    let y = labels(&fixture["labels"]);
    let items = Items::hyperbolic(&points, &y).unwrap();
    let score = Score::Hyperbolic { curvature: 0.1 };
    let exact = nearest(&items, None, &score, 5).unwrap();
    let lorentz = oboro_quant::Metric::Lorentz;
    let (_, found) = oboro_quant::exact::search(
        lifted.data(),
        lifted.dimension(),
        lifted.data(),
        6,
        lorentz,
        0,
    )
    .unwrap();
    for (query, (exact, found)) in exact.iter().zip(found.chunks(6)).enumerate() {
        let exact: Vec<u64> = exact.iter().map(|n| u64::from(n.item)).collect();
        assert_eq!(found[0], query as u64);
        assert_eq!(found[1..], exact);
    }
}

#[test]
fn reports_can_be_stored_and_read() {
    let fixture = fixture("metrics");
    let (rows, y) = (matrix(&fixture["rows"]), labels(&fixture["labels"]));
    let items = Items::euclidean(&rows, &y).unwrap();
    let options = Options {
        nmi_seed: Some([3; 32]),
        ..Options::default()
    };
    let report = evaluate(&items, None, &Score::Cosine, &options).unwrap();
    let nmi = report.nmi.unwrap();
    assert!(nmi > 0.3 && nmi < 1.0, "{nmi}");
    let text = serde_json::to_string(&report).unwrap();
    // Numbers may lose their last bit on the way.
    let again: Report = serde_json::from_str(&text).unwrap();
    assert_eq!(again.to_string(), report.to_string());
    assert_eq!(again.per_query.len(), 91);
    assert_eq!((again.score, again.per_query[90]), (Score::Cosine, None));
    let table = report.to_string();
    assert!(
        table.starts_with("cosine: 90 queries (1 skipped, nothing to find), 91 items, 8 classes\n")
    );
    for name in ["R@1", "R@8", "R-precision", "MAP@R", "nDCG@10", "NMI"] {
        assert!(table.contains(name), "{table}");
    }
}

#[test]
fn fail_nothing_to_find_and_cut_off_zero() {
    let rows = Matrix::new(1, vec![1.0, 2.0]).unwrap();
    let items = Items::euclidean(&rows, &[0, 1]).unwrap();
    let options = Options::default();
    let error = evaluate(&items, None, &Score::Cosine, &options).unwrap_err();
    assert!(error.to_string().starts_with("none of the 2 queries"));
    let options = Options {
        recall_at: vec![0],
        ..Options::default()
    };
    let error = evaluate(&items, None, &Score::Cosine, &options).unwrap_err();
    assert!(error.to_string().contains("a cut-off is 0"));
}
