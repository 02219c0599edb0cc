package image

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/imgwrap/imgwrap/layer/catalog"
)

var release117 = &catalog.Release{
	Version: "1.17.0", Contrib: "0.38b0",
	Propagators:      []string{"b3", "b3multi", "baggage", "jaeger", "ottrace", "tracecontext", "xray"},
	TracesExporters:  []string{"console", "otlp_proto_http"},
	MetricsExporters: []string{"console"},
	LogsExporters:    []string{"console"},
}

var release140 = &catalog.Release{
	Version: "1.40.0", Contrib: "0.61b0",
	TracesExporters: []string{"otlp_proto_http"},
	LogsExporters:   []string{"console"},
}

var release112 = &catalog.Release{Version: "1.12.0", Contrib: "0.33b0", TracesExporters: []string{"console", "otlp_proto_http"}}

func TestEnvironment(t *testing.T) {
	for _, tt := range []struct {
		name     string
		settings Settings
		image    map[string]string
		own      map[string]bool
		release  *catalog.Release // release117 if nil
		want     string           // NAME=VALUE (origin) of all variables, in order
		problem  string
	}{
		{
			name: "profile",
			want: "OTEL_TRACES_EXPORTER=otlp (default), OTEL_METRICS_EXPORTER=none (default), OTEL_LOGS_EXPORTER=none (default), " +
				"OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf (default), OTEL_SERVICE_NAME=app (default)",
		},
		{
			name: "flags come before the image, the image before the profile",
			settings: Settings{
				Endpoint: "http://collector:4318", TracesExporter: "console,otlp", ServiceName: "shop",
				Propagators: "b3", LogCorrelation: "true", Application: "store",
			},
			image: map[string]string{"OTEL_SERVICE_NAME": "cart", "OTEL_METRICS_EXPORTER": "console"},
			want: "OTEL_TRACES_EXPORTER=console,otlp (--traces-exporter), OTEL_METRICS_EXPORTER=console (image), OTEL_LOGS_EXPORTER=none (default), " +
				"OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf (default), OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318 (--endpoint), " +
				"OTEL_SERVICE_NAME=shop (--service-name), OTEL_RESOURCE_ATTRIBUTES=application=store (--application), " +
				"OTEL_PROPAGATORS=b3,b3multi,tracecontext,baggage (--propagators), OTEL_PYTHON_LOG_CORRELATION=true (--log-correlation)",
		},
		{
			name: "logs, which the SDK hands on if told to", settings: Settings{LogsExporter: "console"},
			want: "OTEL_TRACES_EXPORTER=otlp (default), OTEL_METRICS_EXPORTER=none (default), OTEL_LOGS_EXPORTER=console (--logs-exporter), " +
				"OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED=true (default), " +
				"OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf (default), OTEL_SERVICE_NAME=app (default)",
		},
		{
			name: "logs, and the image says what the SDK does", settings: Settings{LogsExporter: "console"},
			image: map[string]string{"OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED": "false"},
			want: "OTEL_TRACES_EXPORTER=otlp (default), OTEL_METRICS_EXPORTER=none (default), OTEL_LOGS_EXPORTER=console (--logs-exporter), " +
				"OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf (default), OTEL_SERVICE_NAME=app (default)",
		},
		{
			name: "logs in a release that needs no telling", settings: Settings{LogsExporter: "console"}, release: release140,
			want: "OTEL_TRACES_EXPORTER=otlp (default), OTEL_METRICS_EXPORTER=none (default), OTEL_LOGS_EXPORTER=console (--logs-exporter), " +
				"OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf (default), OTEL_SERVICE_NAME=app (default)",
		},
		{name: "unknown propagator", settings: Settings{Propagators: "b3,zipkin"}, problem: `no propagator named "zipkin"`},
		{name: "unknown propagator of the image", image: map[string]string{"OTEL_PROPAGATORS": "datadog"}, problem: "OTEL_PROPAGATORS=datadog (image)"},
		{name: "unknown exporter", settings: Settings{TracesExporter: "zipkin"}, problem: `no exporter named "zipkin"`},
		{name: "grpc", image: map[string]string{"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, problem: "http/protobuf only"},
		{
			name:  "grpc with the app's own exporter",
			image: map[string]string{"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, own: map[string]bool{"opentelemetry-exporter-otlp-proto-grpc": true},
			want: "OTEL_TRACES_EXPORTER=otlp (default), OTEL_METRICS_EXPORTER=none (default), OTEL_LOGS_EXPORTER=none (default), " +
				"OTEL_EXPORTER_OTLP_PROTOCOL=grpc (image), OTEL_SERVICE_NAME=app (default)",
		},
		{name: "one of the signals' protocols", image: map[string]string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}, problem: "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=grpc (image)"},
		{
			name:     "an exporter and a propagator of the app",
			settings: Settings{TracesExporter: "zipkin_json,otlp", Propagators: "gcp"},
			own:      map[string]bool{"opentelemetry-exporter-zipkin-json": true, "opentelemetry-propagator-gcp": true},
			want: "OTEL_TRACES_EXPORTER=zipkin_json,otlp (--traces-exporter), OTEL_METRICS_EXPORTER=none (default), OTEL_LOGS_EXPORTER=none (default), " +
				"OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf (default), OTEL_SERVICE_NAME=app (default), OTEL_PROPAGATORS=gcp (--propagators)",
		},
		{
			name: "one of the app's does not admit another", settings: Settings{TracesExporter: "zipkin_json,bogus"},
			own: map[string]bool{"opentelemetry-exporter-zipkin-json": true}, problem: `no exporter named "bogus"`,
		},
		{
			name: "a release in which otlp means gRPC", release: release112,
			want: "OTEL_TRACES_EXPORTER=otlp_proto_http (default), OTEL_METRICS_EXPORTER=none (default), OTEL_LOGS_EXPORTER=none (default), " +
				"OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf (default), OTEL_SERVICE_NAME=app (default)",
		},
		{name: "and asked for", release: release112, settings: Settings{TracesExporter: "otlp"}, problem: `no exporter named "otlp"`},
		{name: "no OTLP exporter for metrics", settings: Settings{MetricsExporter: "otlp"}, problem: `no exporter named "otlp"`},
		{name: "endpoint without scheme", settings: Settings{Endpoint: "collector:4318"}, problem: "not an http or https URL"},
		{name: "attribute without value", settings: Settings{ResourceAttributes: []string{"team"}}, problem: "not KEY=VALUE"},
		{name: "line break", settings: Settings{ServiceName: "a\nb"}, problem: "line break"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.release == nil {
				tt.release = release117
			}
			env, err := tt.settings.environment(tt.image, "app", tt.release, tt.own)
			if tt.problem != "" {
				var setting *SettingError
				if !errors.As(err, &setting) || !strings.Contains(err.Error(), tt.problem) || setting.Hint() == "" {
					t.Fatalf("got %v, want a SettingError with a hint about %q", err, tt.problem)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, v := range env {
				got = append(got, v.Name+"="+v.Value+" ("+v.Origin+")")
			}
			if joined := strings.Join(got, ", "); joined != tt.want {
				t.Errorf("got  %s\nwant %s", joined, tt.want)
			}
		})
	}
}

func TestResourceAttributes(t *testing.T) {
	for _, tt := range []struct {
		settings Settings
		image    string
		want     string
	}{
		{Settings{}, "a=b", ""},
		{Settings{Application: "shop"}, "", "application=shop"},
		{Settings{Application: "shop", ResourceAttributes: []string{"team=a b,c", "x=1=2"}}, "", "application=shop,team=a%20b%2Cc,x=1=2"},
		{Settings{ResourceAttributes: []string{"a=2"}}, "a=1,b=%2C", "a=2,b=%2C"},
		{Settings{ResourceAttributes: []string{"name=ü"}}, "", "name=%C3%BC"},
		{Settings{ResourceAttributes: []string{"empty="}}, "", "empty="},
	} {
		got, err := tt.settings.resourceAttributes(tt.image)
		if err != nil || got != tt.want {
			t.Errorf("%+v onto %q: got %q, %v, want %q", tt.settings, tt.image, got, err, tt.want)
		}
	}
}

// What users set by hand for services of other tracing systems, and the entry
// points that the real releases have for it.
func TestPropagators(t *testing.T) {
	c, err := catalog.Load()
	if err != nil {
		t.Fatal(err)
	}
	for _, release := range []string{"1.17.0", "1.45.1"} {
		r, err := c.Find(release)
		if err != nil {
			t.Fatal(err)
		}
		for given, want := range map[string]string{
			"b3":      "b3,b3multi,tracecontext,baggage",
			"jaeger":  "jaeger,tracecontext,baggage",
			"xray":    "xray,tracecontext,baggage",
			"ottrace": "ottrace,tracecontext,baggage",
		} {
			env, err := Settings{Propagators: given}.environment(nil, "app", r, nil)
			if err != nil {
				t.Errorf("%s with --propagators %s: %v", release, given, err)
				continue
			}
			if !slices.Contains(env, Variable{"OTEL_PROPAGATORS", want, "--propagators"}) {
				t.Errorf("%s with --propagators %s: %v, want OTEL_PROPAGATORS=%s", release, given, env, want)
			}
		}
	}
}
