package image

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/imgwrap/imgwrap/layer/catalog"
	"github.com/imgwrap/imgwrap/layer/pep440"
)

// Settings are the OpenTelemetry settings that become environment variables of
// the wrapped image. An empty value leaves the variable to the image, or to
// the profile if the image does not have it.
//
// The names and values are those of OpenTelemetry's environment variable
// specification.
type Settings struct {
	Endpoint           string   // OTEL_EXPORTER_OTLP_ENDPOINT
	Protocol           string   // OTEL_EXPORTER_OTLP_PROTOCOL
	TracesExporter     string   // OTEL_TRACES_EXPORTER
	MetricsExporter    string   // OTEL_METRICS_EXPORTER
	LogsExporter       string   // OTEL_LOGS_EXPORTER
	ServiceName        string   // OTEL_SERVICE_NAME
	Application        string   // application=… in OTEL_RESOURCE_ATTRIBUTES
	ResourceAttributes []string // KEY=VALUE in OTEL_RESOURCE_ATTRIBUTES
	Propagators        string   // OTEL_PROPAGATORS: a list, or one of b3, jaeger, xray, ottrace
	LogCorrelation     string   // OTEL_PYTHON_LOG_CORRELATION: "true" or "false"
}

// Variable is an environment variable of the wrapped image.
type Variable struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Origin string `json:"origin"` // a flag, "image" or "default"
}

// OriginImage marks a variable that the image had before, with this value.
const OriginImage = "image"

// SettingError is a setting that the wrapped app would choke on at start, or
// silently ignore.
type SettingError struct {
	Variable string
	Value    string
	Origin   string
	Problem  string
	Remedy   string
}

func (e *SettingError) Error() string {
	return fmt.Sprintf("%s=%s (%s): %s", e.Variable, e.Value, e.Origin, e.Problem)
}

// Hint says what to do about it.
func (e *SettingError) Hint() string { return e.Remedy }

// propagatorLists are the lists that are usual where services of another
// tracing system are around: the foreign format first, W3C behind it.
var propagatorLists = map[string]string{
	"b3":      "b3,b3multi,tracecontext,baggage",
	"jaeger":  "jaeger,tracecontext,baggage",
	"ottrace": "ottrace,tracecontext,baggage",
	"xray":    "xray,tracecontext,baggage",
}

const (
	// otlpOverHTTP is the entry point of the exporter in the bundles. "otlp"
	// is the SDK's word for it, by OTEL_EXPORTER_OTLP_PROTOCOL.
	otlpOverHTTP = "otlp_proto_http"
	// grpcOnly is the one release of the catalog that does not know
	// OTEL_EXPORTER_OTLP_PROTOCOL: there "otlp" means gRPC.
	grpcOnly = "1.12.0"
)

// variable is one line of the profile.
type variable struct {
	name    string
	flag    string // the flag that sets it
	value   string // what that flag says
	profile string // the value where neither flag nor image has one; "" for none
	check   func(value string) (problem, remedy string)
}

// environment decides the OTEL_* variables of the wrapped image: a flag comes
// first, then what the image already has, then the profile. own are the
// normalised names of the app's distributions: an exporter or propagator that
// the app ships itself is accepted too.
func (s Settings) environment(image map[string]string, service string, r *catalog.Release, own map[string]bool) ([]Variable, error) {
	propagators := s.Propagators
	if list, ok := propagatorLists[propagators]; ok {
		propagators = list
	}
	attributes, err := s.resourceAttributes(image["OTEL_RESOURCE_ATTRIBUTES"])
	if err != nil {
		return nil, err
	}
	known := func(what, prefix string, names ...[]string) func(string) (string, string) {
		all := slices.Concat(names...)
		return func(value string) (problem, remedy string) { return listed(value, what, prefix, all, own) }
	}
	exporters := func(names []string) func(string) (string, string) {
		if slices.Contains(names, otlpOverHTTP) && r.Version != grpcOnly {
			names = append([]string{"otlp"}, names...)
		}
		return known("exporter", "opentelemetry-exporter-", []string{"none"}, names)
	}
	traces := "otlp"
	if r.Version == grpcOnly {
		traces = otlpOverHTTP
	}
	protocol := func(value string) (problem, remedy string) {
		if value == "http/protobuf" || (value == "grpc" && own["opentelemetry-exporter-otlp-proto-grpc"]) {
			return "", ""
		}
		return "the bundle speaks OTLP over http/protobuf only", "wrap with --protocol http/protobuf, and an --endpoint that speaks it (port 4318 as a rule)"
	}
	profile := []variable{
		{"OTEL_TRACES_EXPORTER", "--traces-exporter", s.TracesExporter, traces, exporters(r.TracesExporters)},
		{"OTEL_METRICS_EXPORTER", "--metrics-exporter", s.MetricsExporter, "none", exporters(r.MetricsExporters)},
		{"OTEL_LOGS_EXPORTER", "--logs-exporter", s.LogsExporter, "none", exporters(r.LogsExporters)},
		{"OTEL_EXPORTER_OTLP_PROTOCOL", "--protocol", s.Protocol, "http/protobuf", protocol},
		{"OTEL_EXPORTER_OTLP_ENDPOINT", "--endpoint", s.Endpoint, "", func(value string) (string, string) {
			if u, err := url.Parse(value); err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
				return "not an http or https URL", "give a URL such as http://collector:4318"
			}
			return "", ""
		}},
		{"OTEL_SERVICE_NAME", "--service-name", s.ServiceName, service, nil},
		{"OTEL_RESOURCE_ATTRIBUTES", s.attributeFlags(), attributes, "", nil},
		{"OTEL_PROPAGATORS", "--propagators", propagators, "", known("propagator", "opentelemetry-propagator-", []string{"none"}, r.Propagators)},
		{"OTEL_PYTHON_LOG_CORRELATION", "--log-correlation", s.LogCorrelation, "", nil},
	}
	for _, signal := range []string{"TRACES", "METRICS", "LOGS"} {
		if name := "OTEL_EXPORTER_OTLP_" + signal + "_PROTOCOL"; image[name] != "" {
			if problem, remedy := protocol(image[name]); problem != "" {
				return nil, &SettingError{name, image[name], OriginImage, problem, remedy}
			}
		}
	}
	var env []Variable
	for _, p := range profile {
		v := Variable{Name: p.name, Value: p.value, Origin: p.flag}
		if v.Value == "" {
			v.Value, v.Origin = image[p.name], OriginImage
		}
		if v.Value == "" {
			v.Value, v.Origin = p.profile, "default"
		}
		if v.Value == "" {
			continue
		}
		if strings.ContainsAny(v.Value, "\x00\n\r") {
			return nil, &SettingError{v.Name, fmt.Sprintf("%q", v.Value), v.Origin, "holds a line break or NUL", "give it on one line"}
		}
		if p.check != nil {
			if problem, remedy := p.check(v.Value); problem != "" {
				return nil, &SettingError{v.Name, v.Value, v.Origin, problem, remedy}
			}
		}
		env = append(env, v)
		if p.name == "OTEL_LOGS_EXPORTER" && v.Value != "none" && handlerOnDemand(r) && image[logHandler] == "" {
			env = append(env, Variable{logHandler, "true", "default"})
		}
	}
	return env, nil
}

// logHandler makes an SDK hand on what the app logs.
const logHandler = "OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED"

// handlerOnDemand says whether a release needs [logHandler]. From 1.40.0 on the
// logging instrumentation does it unasked, and the SDK warns of the variable.
func handlerOnDemand(r *catalog.Release) bool {
	version, err := pep440.Parse(r.Version)
	first, _ := pep440.Parse("1.40.0")
	return err == nil && version.Compare(first) < 0
}

// listed checks a comma separated list against the names there are: an unknown
// one would end the app's telemetry at start. One that the app ships itself, by
// upstream's naming of distributions, is known too.
func listed(value, what, prefix string, known []string, own map[string]bool) (problem, remedy string) {
	for name := range strings.SplitSeq(value, ",") {
		name = strings.TrimSpace(name)
		if slices.Contains(known, name) || own[prefix+strings.ReplaceAll(name, "_", "-")] {
			continue
		}
		names := slices.Sorted(slices.Values(known))
		return fmt.Sprintf("no %s named %q", what, name), "there are " + strings.Join(slices.Compact(names), ", ")
	}
	return "", ""
}

// silenced says which variables of the image keep telemetry from being sent,
// although nothing is wrong with them.
func silenced(image map[string]string) []string {
	var warnings []string
	if strings.EqualFold(image["OTEL_SDK_DISABLED"], "true") {
		warnings = append(warnings, "OTEL_SDK_DISABLED=true in the image: nothing is traced until that is changed")
	}
	if image["OTEL_TRACES_EXPORTER"] == "none" {
		warnings = append(warnings, "OTEL_TRACES_EXPORTER=none in the image: no trace is sent until that is changed")
	}
	return warnings
}

// attributeFlags names the flags that make up OTEL_RESOURCE_ATTRIBUTES.
func (s Settings) attributeFlags() string {
	var flags []string
	if s.Application != "" {
		flags = append(flags, "--application")
	}
	if len(s.ResourceAttributes) > 0 {
		flags = append(flags, "--resource-attribute")
	}
	return strings.Join(flags, ", ")
}

// resourceAttributes merges the flags into what the image has, a key of the
// flags in place of the image's. Values are percent-encoded where the
// specification of OTEL_RESOURCE_ATTRIBUTES (W3C Baggage, section 3.2.1.2)
// asks for it. It is empty if no flag is given: the image's stay as they are.
func (s Settings) resourceAttributes(image string) (string, error) {
	given := s.ResourceAttributes
	if s.Application != "" {
		given = append([]string{"application=" + s.Application}, given...)
	}
	if len(given) == 0 {
		return "", nil
	}
	type attribute struct{ key, value string }
	var merged []attribute
	set := func(key, value string) {
		for i := range merged {
			if merged[i].key == key {
				merged[i].value = value
				return
			}
		}
		merged = append(merged, attribute{key, value})
	}
	for pair := range strings.SplitSeq(image, ",") {
		if key, value, ok := strings.Cut(strings.TrimSpace(pair), "="); ok {
			set(strings.TrimSpace(key), value)
		}
	}
	for _, pair := range given {
		key, value, ok := strings.Cut(pair, "=")
		key = strings.TrimSpace(key)
		if !ok || key == "" || strings.ContainsAny(key, ", ;\"\\") {
			return "", &SettingError{"OTEL_RESOURCE_ATTRIBUTES", pair, "--resource-attribute", "not KEY=VALUE", "write --resource-attribute deployment.environment=staging, once for each"}
		}
		set(key, escapeAttribute(value))
	}
	var b strings.Builder
	for i, a := range merged {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(a.key + "=" + a.value)
	}
	return b.String(), nil
}

// escapeAttribute percent-encodes everything that baggage-octet leaves out.
func escapeAttribute(value string) string {
	var b strings.Builder
	for i := range len(value) {
		switch c := value[i]; {
		case c <= ' ' || c >= 0x7f || strings.IndexByte(`",;\%`, c) >= 0:
			fmt.Fprintf(&b, "%%%02X", c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}
