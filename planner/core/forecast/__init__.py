"""Quantile forecasts of the request rate, chosen and weighed by a rolling backtest."""
