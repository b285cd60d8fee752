"""The graph specification: DynamoGraphDeployment YAML of either version, read into one form."""
