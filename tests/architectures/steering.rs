//! What steering does with models that it cannot read feature by feature: it says so.

use super::*;
use sae::model::Ensemble;
use sae::steer::Plan;

#[test]
fn gates_and_ensembles_are_refused_by_name() {
    let mut random = Random(1);
    let model = affine(&mut random, spread, 6, 20, 6);
    let plain = || Sae::from_parts(model.parts(Activation::Relu, Stored::Rows)).unwrap();
    let gate: Vec<Vec<f64>> = (0..20).map(|_| spread(&mut random, 6)).collect();
    let gated = Sae::from_parts(Parts {
        glu: Some(Glu {
            matrix: matrix("gate", &gate, Stored::Rows),
            bias: None,
        }),
        ..model.parts(Activation::Relu, Stored::Rows)
    });
    let text = r#"{"edits": [{"feature": 3, "rule": "set", "strength": 1.0}]}"#;
    let plan = Plan::from_json(text);
    let plan = plan.unwrap();
    assert!(plain().compile_plan(&plan).is_ok());
    let bag = Sae::ensemble(vec![plain(), plain()], Ensemble::Bag).unwrap();
    for sae in [gated.unwrap(), bag] {
        let error = sae.compile_plan(&plan).unwrap_err();
        assert!(error.to_string().contains("steering"), "{error}");
        assert!(sae.plan_cost(&plan).is_err());
    }
}
