package promote

// ChartName is the name of the file beside a chart's values that tells its
// version.
const ChartName = "Chart.yaml"

// AppVersion is the version of what a chart installs, which is the tag of its
// images where the values leave that empty. It is "" if the chart has none.
func AppVersion(name string, content []byte) (string, error) {
	t, err := parse(name, content)
	if err != nil {
		return "", &NotYAMLError{name, false, err}
	}
	if len(t.docs) == 0 {
		return "", nil
	}
	return t.root(0).get("appVersion").text(), nil
}
