"""One job each: a training, an evaluation, a prediction."""
