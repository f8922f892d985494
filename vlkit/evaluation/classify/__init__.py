"""Images against labels of your own, in any language the model reads."""
