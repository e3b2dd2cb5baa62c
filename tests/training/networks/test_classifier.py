import pytest
import torch

from training.networks.classifier import BatchDropout, GapClassifier, weighted_mean


def make(channels: int = 2, classes: int = 3, dropout: float = 0.0) -> GapClassifier:
    classifier = GapClassifier(channels, classes, dropout).double()
    with torch.no_grad():
        classifier.linear.weight.copy_(torch.tensor([[1.0, 0.0], [2.0, -1.0], [0.0, 3.0]]))
        classifier.linear.bias.copy_(torch.tensor([10.0, 20.0, 30.0]))
    return classifier


FEATURES = torch.tensor([[[[1.0, 3.0]], [[0.0, 4.0]]], [[[2.0, 2.0]], [[6.0, 0.0]]]], dtype=torch.float64)
"""(2, 2, 1, 2): means (2, 2) and (2, 3)."""


def test_scores_by_hand() -> None:
    expected = [[12.0, 22.0, 36.0], [12.0, 21.0, 39.0]]
    assert make()(FEATURES).tolist() == expected


def test_scores_of_a_weighted_mean_by_hand() -> None:
    # Means weighted by (1, 3) / 4 and by the second position alone, weights averaged over 2 x 2 pixels each.
    weights = torch.tensor([[[0.4, 0.0, 0.6, 0.6], [0.0, 0.0, 0.0, 0.0]], [[0.0, 0.0, 1.0, 1.0]] * 2]).double()
    expected = [[10 + 2.5, 20 + 2 * 2.5 - 3, 30 + 3 * 3.0], [10 + 2.0, 20 + 4.0, 30.0]]
    torch.testing.assert_close(make()(FEATURES, weights), torch.tensor(expected).double(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("weight", [0.0, 1e-3, 1.0])
def test_the_mean_with_equal_weights_is_the_plain_one_even_where_they_are_0(weight: float) -> None:
    found = weighted_mean(FEATURES, torch.full((2, 3, 5), weight))
    torch.testing.assert_close(found, FEATURES.mean(dim=(2, 3)), rtol=1e-6, atol=0)


def test_a_weighted_mean_of_bfloat16_is_taken_in_float32_and_its_weights_get_no_gradient() -> None:
    features = torch.full((1, 1, 1, 257), 1 / 256, dtype=torch.bfloat16)
    weights = torch.ones(1, 1, 257, requires_grad=True)
    found = weighted_mean(features.requires_grad_(), weights)
    assert found.dtype == torch.float32 and found.item() == pytest.approx(1 / 256)
    found.backward()
    assert weights.grad is None and features.grad is not None


def test_activation_maps_by_hand() -> None:
    maps = make().class_activation_maps(FEATURES, torch.tensor([[1, 2], [0, 1]]))
    assert maps.tolist() == [[[[2.0, 2.0]], [[0.0, 12.0]]], [[[2.0, 2.0]], [[-2.0, 4.0]]]]


def test_all_classes_by_default() -> None:
    classifier = make()
    every = torch.arange(3).expand(2, 3)
    assert torch.equal(classifier.class_activation_maps(FEATURES), classifier.class_activation_maps(FEATURES, every))


def test_the_mean_of_a_map_is_the_score_without_bias() -> None:
    torch.manual_seed(0)
    classifier = GapClassifier(16, 7).double()
    torch.nn.init.normal_(classifier.linear.bias)
    features = torch.rand(3, 16, 5, 4, dtype=torch.float64)
    maps = classifier.class_activation_maps(features)
    torch.testing.assert_close(maps.mean(dim=(2, 3)) + classifier.linear.bias, classifier(features))


def test_dropout_acts_in_training_only_and_never_on_the_maps() -> None:
    torch.manual_seed(0)
    classifier = make(dropout=0.5).train()
    many = [classifier(FEATURES).tolist() for _ in range(8)]
    assert any(scores != many[0] for scores in many)
    assert torch.equal(classifier.class_activation_maps(FEATURES), make().class_activation_maps(FEATURES))
    assert torch.equal(classifier.eval()(FEATURES), make()(FEATURES))


def test_the_first_scores_are_near_zero() -> None:
    torch.manual_seed(0)
    scores = GapClassifier(1024, 1000)(torch.rand(4, 1024, 13, 13))
    assert 0 < scores.abs().max() < 2


def test_gradients() -> None:
    torch.manual_seed(0)
    classifier = GapClassifier(3, 2).double()
    features = torch.rand(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    classes = torch.tensor([[1], [0]])
    assert torch.autograd.gradcheck(classifier, (features,))
    weights = torch.rand(2, 5, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda f: classifier(f, weights), (features,))
    assert torch.autograd.gradcheck(lambda f: classifier.class_activation_maps(f, classes), (features,))


@pytest.mark.parametrize(
    "classes",
    [torch.tensor([1, 2]), torch.tensor([[1]]), torch.tensor([[1.0], [0.0]]), torch.tensor([[1], [0]]).int()],
)
def test_classes_of_another_shape_or_dtype_are_refused(classes: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"expected \(B, k\) int64 with B = 2"):
        make().class_activation_maps(FEATURES, classes)


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ValueError, match="0 classes"):
        GapClassifier(4, 0)
    with pytest.raises(ValueError, match=r"dropout 1\.0"):
        GapClassifier(4, 2, 1.0)


def test_dropout_of_parts_of_a_batch_is_that_of_the_whole() -> None:
    dropout = BatchDropout(0.5)
    torch.manual_seed(3)
    whole = dropout(torch.ones(6, 40))
    assert set(whole.unique().tolist()) == {0.0, 2.0}
    parts = []
    for first in (0, 2, 4):
        dropout.first, dropout.of = first, 6
        torch.manual_seed(3)
        parts.append(dropout(torch.ones(2, 40)))
    assert torch.equal(torch.cat(parts), whole)
