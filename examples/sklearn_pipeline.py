"""The scikit-learn estimator in a pipeline, its rate of dropout chosen by cross-validation.

300 of scikit-learn's digits are for learning, the others for the test. Run it with

    python examples/sklearn_pipeline.py
"""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler

from fastdrop import MLPClassifier


def main():
    x, y = load_digits(return_X_y=True)
    x = x.astype(np.float32)  # the network computes in the dtype of the data
    x, x_test, y, y_test = train_test_split(x, y, train_size=300, stratify=y, random_state=0)

    model = MLPClassifier(
        hidden_layer_sizes=(256, 256),
        solver="sgd",
        learning_rate_init=0.03,
        batch_size=30,
        rows_per_mask=10,
        max_iter=40,
        n_iter_no_change=40,
        input_dropout=0.1,
        random_state=0,
    )
    search = GridSearchCV(
        make_pipeline(MaxAbsScaler(), model),
        {"mlpclassifier__dropout": [0.0, 0.25, 0.5]},
        cv=3,
    )
    search.fit(x, y)

    results = search.cv_results_
    for settings, score in zip(results["params"], results["mean_test_score"], strict=True):
        print(f"dropout {settings['mlpclassifier__dropout']:4}: accuracy {score:.3f}")
    print(f"the best is {search.best_params_['mlpclassifier__dropout']}")
    print(f"accuracy on {len(x_test)} other digits: {search.score(x_test, y_test):.3f}")


if __name__ == "__main__":
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    warnings.simplefilter("ignore", ConvergenceWarning)  # 40 epochs are what is wanted
    main()
