package instrument

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/imgwrap/imgwrap/layer/catalog"
)

// release makes a release of a catalog with upstream's shape: distributions as
// "name version: requirement; requirement".
func release(version, contrib, python string, distributions []string, instrumentations ...catalog.Instrumentation) *catalog.Release {
	r := &catalog.Release{Version: version, Contrib: contrib, Instrumentations: instrumentations}
	r.Python.Min, r.Python.Max = python, "3.14"
	for _, d := range distributions {
		head, requires, _ := strings.Cut(d, ":")
		name, version, _ := strings.Cut(head, " ")
		dist := catalog.Distribution{Name: name, Version: version}
		for r := range strings.SplitSeq(requires, "|") {
			if r = strings.TrimSpace(r); r != "" {
				dist.Requires = append(dist.Requires, r)
			}
		}
		r.Distributions = append(r.Distributions, dist)
	}
	return r
}

var (
	flask = catalog.Instrumentation{
		Name: "flask", Distribution: "opentelemetry-instrumentation-flask",
		Libraries: []string{"flask >= 1.0, < 3.0"}, Instruments: []string{"flask >= 1.0, < 3.0"},
	}
	newFlask = catalog.Instrumentation{
		Name: "flask", Distribution: "opentelemetry-instrumentation-flask",
		Libraries: []string{"flask >= 1.0"}, Instruments: []string{"flask >= 1.0"},
	}
	wsgi    = catalog.Instrumentation{Name: "wsgi", Distribution: "opentelemetry-instrumentation-wsgi", Always: true}
	metrics = catalog.Instrumentation{
		Name: "system_metrics", Distribution: "opentelemetry-instrumentation-system-metrics",
		Libraries: []string{"psutil >= 5"}, Instruments: []string{"psutil >= 5"},
	}
	django = catalog.Instrumentation{
		Name: "django", Distribution: "opentelemetry-instrumentation-django",
		Libraries: []string{"django >= 1.10"}, Instruments: []string{"django >= 1.10"},
	}
	kafka = catalog.Instrumentation{
		Name: "kafka", Distribution: "opentelemetry-instrumentation-kafka-python",
		Libraries:      []string{"kafka-python >= 2.0, < 3.0", "kafka-python-ng >= 2.0, < 3.0"},
		InstrumentsAny: []string{"kafka-python >= 2.0, < 3.0", "kafka-python-ng >= 2.0, < 3.0"},
	}
)

func testCatalog() *catalog.Catalog {
	releases := []*catalog.Release{
		release("1.45.1", "0.66b1", "3.10", []string{
			"opentelemetry-distro 0.66b1: opentelemetry-sdk==1.45.1 | opentelemetry-instrumentation==0.66b1",
			"opentelemetry-sdk 1.45.1: typing-extensions>=4.5",
			"opentelemetry-instrumentation 0.66b1: wrapt<3,>=1.0",
			"opentelemetry-exporter-otlp-proto-http 1.45.1: protobuf<8.0,>=5.0 | requests~=2.7",
			"opentelemetry-propagator-b3 1.45.1: typing-extensions>=4.5",
			"opentelemetry-instrumentation-flask 0.66b1: opentelemetry-instrumentation==0.66b1 | opentelemetry-instrumentation-wsgi==0.66b1 | packaging>=21.0 | flask>=1.0; extra == 'instruments'",
			"opentelemetry-instrumentation-wsgi 0.66b1: opentelemetry-instrumentation==0.66b1",
			"opentelemetry-instrumentation-system-metrics 0.66b1: psutil<8,>=5.9",
			"opentelemetry-instrumentation-django 0.66b1: opentelemetry-instrumentation-wsgi==0.66b1",
			"opentelemetry-instrumentation-kafka-python 0.66b1: opentelemetry-instrumentation==0.66b1",
			"packaging 24.0:", "protobuf 6.33.0:", "requests 2.32.0: urllib3<3,>=1.21 | chardet; extra == 'use-chardet'",
			"typing-extensions 4.12.0:", "urllib3 2.2.0:", "wrapt 1.17.0:",
		}, django, newFlask, kafka, metrics, wsgi),
		release("1.17.0", "0.38b0", "3.7", []string{
			"opentelemetry-distro 0.38b0: opentelemetry-sdk==1.17.0 | opentelemetry-instrumentation==0.38b0",
			"opentelemetry-sdk 1.17.0: typing-extensions>=3.7.4 | importlib-metadata~=6.0.0; python_version<'3.8'",
			"opentelemetry-instrumentation 0.38b0: wrapt<2,>=1.0",
			"opentelemetry-exporter-otlp-proto-http 1.17.0: protobuf<5.0,>=3.19",
			"opentelemetry-instrumentation-flask 0.38b0: opentelemetry-instrumentation==0.38b0",
			"opentelemetry-instrumentation-wsgi 0.38b0: opentelemetry-instrumentation==0.38b0",
			"importlib-metadata 6.0.1:", "protobuf 4.21.0:", "typing-extensions 4.7.0:", "wrapt 1.16.0:",
		}, flask, wsgi),
	}
	for _, python := range []string{"3.10", "3.13"} {
		releases[0].Trials = append(releases[0].Trials,
			catalog.Trial{Distribution: "packaging", Python: python, Worked: []string{"20.0"}},
			catalog.Trial{Distribution: "protobuf", Python: python, Worked: []string{"4.25.5"}},
			catalog.Trial{Distribution: "typing-extensions", Python: python, Worked: []string{"3.7.0"}})
	}
	return catalog.New(releases...)
}

func environment(python string, distributions ...string) Environment {
	env := Environment{Python: python, Machine: "x86_64"}
	for _, d := range distributions {
		name, version, _ := strings.Cut(d, " ")
		env.Distributions = append(env.Distributions, Distribution{Name: name, Version: version})
	}
	return env
}

func TestChoose(t *testing.T) {
	for _, tt := range []struct {
		name     string
		env      Environment
		opts     Options
		release  string
		selected string
		leftOut  string // name: part of the reason
		refused  string // part of the first refusal
		hidden   string // a distribution that must be hidden
		added    string // a distribution that must take effect
		allowed  int    // conflicts
		proven   int    // conflicts
	}{
		{
			name: "nothing installed", env: environment("3.11"),
			release: "1.45.1", selected: "wsgi", hidden: "opentelemetry-instrumentation-flask", added: "protobuf",
		},
		{
			name: "the newest that fits, by the name as the app spells it", env: environment("3.11.2", "Flask 3.0.3"),
			release: "1.45.1", selected: "flask wsgi", added: "packaging",
		},
		{
			name: "protobuf 4 rules the newest out", env: environment("3.11", "protobuf 4.25.5", "flask 2.2.5"),
			release: "1.17.0", selected: "flask wsgi", hidden: "protobuf",
			refused: "opentelemetry-exporter-otlp-proto-http requires protobuf<8.0,>=5.0, the image has protobuf 4.25.5",
		},
		{
			name: "an older Python too", env: environment("3.9", "flask 2.2.5"),
			release: "1.17.0", selected: "flask wsgi", refused: "needs Python 3.10",
		},
		{
			name: "a marker that does not apply is no requirement", env: environment("3.9", "importlib-metadata 8.0.0"),
			release: "1.17.0", selected: "wsgi",
		},
		{
			name: "library outside the release's range", env: environment("3.9", "flask 3.0.3"),
			release: "1.17.0", selected: "wsgi", leftOut: "flask: flask 3.0.3 is installed, this release instruments flask >= 1.0, < 3.0",
		},
		{
			name: "pre-release of an exclusive bound", env: environment("3.9", "flask 3.0.0rc1"),
			release: "1.17.0", selected: "wsgi", leftOut: "flask: flask 3.0.0rc1",
		},
		{
			name: "an instrumentation's own requirement", env: environment("3.11", "flask 3.0.3", "packaging 20.0"),
			release: "1.45.1", selected: "wsgi", hidden: "packaging",
			leftOut: "flask: opentelemetry-instrumentation-flask requires packaging>=21.0, the image has packaging 20.0",
		},
		{
			name: "either library", env: environment("3.11", "kafka-python-ng 2.2.3"),
			release: "1.45.1", selected: "kafka wsgi",
		},
		{
			name: "psutil is the app's to bring", env: environment("3.11", "psutil 6.0.0"),
			release: "1.45.1", selected: "system_metrics wsgi", added: "opentelemetry-instrumentation-system-metrics",
		},
		{
			name: "psutil too new for the requirement", env: environment("3.11", "psutil 8.0.0"),
			release: "1.45.1", selected: "wsgi", leftOut: "system_metrics: ",
			hidden: "opentelemetry-instrumentation-system-metrics",
		},
		{
			name: "the first distribution of a name counts", env: environment("3.11", "protobuf 6.1.0", "Protobuf 4.25.5"),
			release: "1.45.1", selected: "wsgi",
		},
		{
			name: "a version that is none", env: environment("3.11", "protobuf unknown"),
			opts: Options{Release: "1.45.1"},
		},
		{
			name: "asked for", env: environment("3.11", "flask 2.2.5"), opts: Options{Release: "0.38b0"},
			release: "1.17.0", selected: "flask wsgi",
		},
		{
			name: "asked for and in conflict", env: environment("3.11", "protobuf 5.0.0"), opts: Options{Release: "1.17.0"},
		},
		{
			name: "a conflict is allowed", env: environment("3.11", "protobuf 4.25.5"), opts: Options{AllowConflict: []string{"Protobuf"}},
			release: "1.45.1", selected: "wsgi", hidden: "protobuf", allowed: 1,
		},
		{
			name: "what the image does not have is no allowed conflict", env: environment("3.11", "flask 2.2.5", "typing-extensions 4.4.0"), opts: Options{AllowConflict: []string{"psutil"}},
			release: "1.17.0", selected: "flask wsgi",
		},
		{
			name: "a Python that is newer than all releases", env: environment("3.15"),
			release: "1.45.1", selected: "wsgi",
		},
		{
			name: "a Python of no version", env: environment(""),
		},
		{
			name: "proven where no bounds hold", env: environment("3.11", "protobuf 4.25.5", "typing-extensions 3.7.0"),
			release: "1.45.1", selected: "wsgi", proven: 3,
		},
		{
			name: "proven on this Python only", env: environment("3.14", "protobuf 4.25.5", "typing-extensions 3.7.0"),
		},
		{
			name: "no proof wanted", env: environment("3.11", "protobuf 4.25.5", "typing-extensions 3.7.0"), opts: Options{Bounds: BoundsStrict},
		},
		{
			name: "proven before strict", env: environment("3.11", "protobuf 4.25.5"), opts: Options{Bounds: BoundsProven},
			release: "1.45.1", selected: "wsgi", proven: 1, hidden: "protobuf",
		},
		{
			name: "only the core is proven", env: environment("3.11", "protobuf 4.25.5", "flask 3.0.3", "packaging 20.0"), opts: Options{Bounds: BoundsProven},
			release: "1.45.1", selected: "wsgi", proven: 1, leftOut: "flask: opentelemetry-instrumentation-flask requires packaging>=21.0",
		},
		{
			name: "not wanted", env: environment("3.11", "flask 3.0.3"), opts: Options{Without: []string{"flask", "wsgi"}},
			release: "1.45.1", leftOut: "flask: not wanted",
		},
		{
			name: "excluded by a fact", env: func() Environment {
				e := environment("3.11", "Django 5.0")
				e.Excluded = map[string]string{"django": "no settings"}
				return e
			}(),
			release: "1.45.1", selected: "wsgi", leftOut: "django: no settings",
		},
		{
			name: "an app with its own SDK gets that release", env: environment("3.11", "opentelemetry-sdk 1.17.0", "opentelemetry-instrumentation-flask 0.38b0", "flask 2.2.5"),
			release: "1.17.0", selected: "flask wsgi", hidden: "opentelemetry-sdk",
			refused: "opentelemetry-distro requires opentelemetry-sdk==1.45.1, the image has opentelemetry-sdk 1.17.0",
		},
		{
			name: "an app that ships all of it too", env: environment("3.11", "opentelemetry-distro 0.38b0", "opentelemetry-exporter-otlp-proto-http 1.17.0",
				"opentelemetry-sdk 1.17.0", "opentelemetry-instrumentation 0.38b0", "flask 2.2.5"),
			release: "1.17.0", selected: "flask wsgi", refused: "this release requires opentelemetry-distro==0.66b1, the image has opentelemetry-distro 0.38b0",
		},
		{
			name: "or none", env: environment("3.11", "opentelemetry-sdk 1.30.0"),
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Choose(testCatalog(), tt.env, tt.opts)
			if tt.release == "" {
				var none *NoReleaseError
				if !errors.As(err, &none) {
					t.Fatalf("got %v, want a NoReleaseError", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if c.Release.Version != tt.release {
				t.Errorf("release %s, want %s", c.Release.Version, tt.release)
			}
			if len(c.Allowed) != tt.allowed || len(c.Proven) != tt.proven {
				t.Errorf("allowed %v, want %d; proven %v, want %d", c.Allowed, tt.allowed, c.Proven, tt.proven)
			}
			var selected []string
			for _, s := range c.Selected {
				selected = append(selected, s.Name)
			}
			if got := strings.Join(selected, " "); got != tt.selected {
				t.Errorf("selected %q, want %q", got, tt.selected)
			}
			if name, reason, ok := strings.Cut(tt.leftOut, ": "); ok && !slices.ContainsFunc(c.LeftOut, func(l LeftOut) bool {
				return l.Name == name && strings.Contains(l.Reason, reason)
			}) {
				t.Errorf("left out %v, want %s", c.LeftOut, tt.leftOut)
			}
			if tt.refused != "" && (len(c.Refused) == 0 || !strings.Contains(strings.Join(c.Refused[0].Reasons(), "\n"), tt.refused)) {
				t.Errorf("refused %v, want %s", c.Refused, tt.refused)
			}
			named := func(list []catalog.Distribution, name string) bool {
				return slices.ContainsFunc(list, func(d catalog.Distribution) bool { return d.Name == name })
			}
			if tt.hidden != "" && (!named(c.Hidden, tt.hidden) || named(c.Added, tt.hidden)) {
				t.Errorf("%s is not hidden", tt.hidden)
			}
			if tt.added != "" && (!named(c.Added, tt.added) || named(c.Hidden, tt.added)) {
				t.Errorf("%s is not added", tt.added)
			}
			if got, want := len(c.Added)+len(c.Hidden), len(c.Release.Distributions); got != want {
				t.Errorf("%d distributions added or hidden, the release has %d", got, want)
			}
		})
	}
}

func TestRefusalNamesEverything(t *testing.T) {
	_, err := Choose(testCatalog(), environment("3.11", "protobuf 5.1.0", "typing-extensions 4.4.0"), Options{})
	if err == nil {
		t.Fatal("chose a release")
	}
	var none *NoReleaseError
	if !errors.As(err, &none) {
		t.Fatalf("got %T", err)
	}
	var reasons []string
	for _, r := range none.Refused {
		reasons = append(reasons, r.Release.String()+": "+strings.Join(r.Reasons(), "; "))
	}
	want := []string{
		"1.45.1/0.66b1: opentelemetry-sdk requires typing-extensions>=4.5, the image has typing-extensions 4.4.0; " +
			"opentelemetry-propagator-b3 requires typing-extensions>=4.5, the image has typing-extensions 4.4.0",
		"1.17.0/0.38b0: opentelemetry-exporter-otlp-proto-http requires protobuf<5.0,>=3.19, the image has protobuf 5.1.0",
	}
	if !slices.Equal(reasons, want) {
		t.Errorf("reasons\n%s\nwant\n%s", strings.Join(reasons, "\n"), strings.Join(want, "\n"))
	}
	if want := "none of 2 OpenTelemetry releases fits; the nearest: OpenTelemetry " + strings.Replace(want[0], ": ", " does not fit: ", 1); err.Error() != want {
		t.Errorf("error %q, want %q", err, want)
	}
	if want := "with typing-extensions>=4.5 in the image, 1.45.1/0.66b1 would fit"; none.Hint() != want {
		t.Errorf("hint %q, want %q", none.Hint(), want)
	}
}

func TestUnknownNames(t *testing.T) {
	var release *catalog.UnknownReleaseError
	if _, err := Choose(testCatalog(), environment("3.11"), Options{Release: "9.9.9"}); !errors.As(err, &release) {
		t.Errorf("unknown release: %v", err)
	}
	var unknown *UnknownInstrumentationError
	if _, err := Choose(testCatalog(), environment("3.11"), Options{Without: []string{"flsk"}}); !errors.As(err, &unknown) || unknown.Name != "flsk" {
		t.Errorf("unknown instrumentation: %v", err)
	}
}

func TestChosenByHand(t *testing.T) {
	c := catalog.New(release("1.45.1", "0.66b1", "3.10", []string{
		"opentelemetry-distro 0.66b1:", "opentelemetry-exporter-otlp-proto-http 1.45.1:",
		"opentelemetry-instrumentation-flask 0.66b1:", "opentelemetry-instrumentation-grpc 0.66b1:", "opentelemetry-instrumentation-kafka-python 0.66b1:",
	}, newFlask,
		catalog.Instrumentation{Name: "grpc_client", Distribution: "opentelemetry-instrumentation-grpc", Libraries: []string{"grpcio >= 1.42"}},
		catalog.Instrumentation{Name: "grpc_server", Distribution: "opentelemetry-instrumentation-grpc", Libraries: []string{"grpcio >= 1.42"}},
		kafka))
	for _, tt := range []struct {
		name    string
		env     Environment
		opts    Options
		want    string // selected, unchecked ones with a "!"
		without string
	}{
		{name: "nothing", env: environment("3.11")},
		{name: "a library without metadata", env: environment("3.11"), opts: Options{Instrument: []string{"flask", "kafka"}}, want: "flask! kafka!"},
		{name: "a library with metadata", env: environment("3.11", "flask 2.2.5"), opts: Options{Instrument: []string{"flask"}}, want: "flask"},
		{name: "a library in another version", env: environment("3.11", "flask 0.12"), opts: Options{Instrument: []string{"flask"}}},
		{name: "one of two", env: environment("3.11", "kafka-python-ng 2.2"), opts: Options{Instrument: []string{"kafka"}}, want: "kafka"},
		{name: "one of a distribution", env: environment("3.11"), opts: Options{Instrument: []string{"grpc_client"}}, want: "grpc_client", without: "grpc_server"},
		{name: "all but one of it", env: environment("3.11", "grpcio 1.60"), opts: Options{Without: []string{"grpc_server"}}, want: "grpc_client", without: "grpc_server"},
		{name: "none of it", env: environment("3.11", "grpcio 1.60"), opts: Options{Without: []string{"grpc_server", "grpc_client"}}},
		{
			name: "the app's own, unwanted", env: environment("3.11", "flask 2.2.5", "opentelemetry-instrumentation-flask 0.66b1"),
			opts: Options{Without: []string{"flask"}}, without: "flask",
		},
		{name: "the app's own, without a library", env: environment("3.11", "opentelemetry-instrumentation-flask 0.66b1")},
	} {
		choice, err := Choose(c, tt.env, tt.opts)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		var selected []string
		for _, s := range choice.Selected {
			name := s.Name
			if s.Unchecked {
				name += "!"
				if !strings.Contains(s.Reason, "which is left out") {
					t.Errorf("%s: %s is selected because %s", tt.name, s.Name, s.Reason)
				}
			}
			selected = append(selected, name)
		}
		if got := strings.Join(selected, " "); got != tt.want {
			t.Errorf("%s: selected %q, want %q", tt.name, got, tt.want)
		}
		if got := strings.Join(choice.Without, " "); got != tt.without {
			t.Errorf("%s: without %q, want %q", tt.name, got, tt.without)
		}
	}
}

func TestNearNames(t *testing.T) {
	r := &catalog.Release{Version: "1.45.1", Contrib: "0.66b1"}
	for _, name := range []string{"aio-pika", "aiohttp-client", "aiohttp-server", "flask", "grpc_client", "pika", "psycopg", "psycopg2", "redis"} {
		r.Instrumentations = append(r.Instrumentations, catalog.Instrumentation{Name: name})
	}
	for name, want := range map[string]string{
		"flsk":                                "did you mean flask?",
		"Flask":                               "did you mean flask?",
		"opentelemetry-instrumentation-flask": "did you mean flask?",
		"psycopg3":                            "did you mean psycopg or psycopg2?",
		"aiohttp":                             "did you mean aiohttp-client or aiohttp-server?",
		"grpc-client":                         "did you mean grpc_client?",
		"ab":                                  "it has aio-pika, ",
		"":                                    "it has aio-pika, ",
		"sqlalchemy":                          "it has aio-pika, ",
	} {
		if got := (&UnknownInstrumentationError{name, r}).Hint(); !strings.HasPrefix(got, want) {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
}

// FastAPI brings the API alone, in a patch release that the index does not have
// all of: no bounds hold, and 1.45.1 was run with it.
func TestNewestFastAPI(t *testing.T) {
	c, err := catalog.Load()
	if err != nil {
		t.Fatal(err)
	}
	env := environment("3.12", "fastapi 0.141.0", "starlette 1.6.0", "pydantic 2.13.0", "typing-extensions 4.15.0", "opentelemetry-api 1.45.2")
	choice, err := Choose(c, env, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if choice.Release.Version != "1.45.1" || len(choice.Proven) == 0 {
		t.Errorf("release %s, proven %v", choice.Release, choice.Proven)
	}
	if !slices.ContainsFunc(choice.Selected, func(s Selection) bool { return s.Name == "fastapi" }) {
		t.Errorf("fastapi is left out: %v", choice.LeftOut)
	}
	var none *NoReleaseError
	if _, err := Choose(c, env, Options{Bounds: BoundsStrict}); !errors.As(err, &none) {
		t.Errorf("strictly: %v, want a NoReleaseError", err)
	}
}

// TestChooseUnlocked is about distributions whose version is yet to be chosen,
// by whoever installs them.
func TestChooseUnlocked(t *testing.T) {
	for _, tt := range []struct {
		name, distribution, within string
		release, refused           string
		selected                   bool // flask
	}{
		{"any version will do", "Flask", "", "1.45.1", "", true},
		{"some version in the range will do", "Flask", ">=2,<4", "1.45.1", "", true},
		{"none will", "flask", "<0.9", "1.45.1", "", false},
		{"of what the core asks for too", "protobuf", ">=3.20,<5", "1.17.0", "the image has protobuf >=3.20,<5", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env := environment("3.11")
			env.Distributions = []Distribution{{Name: tt.distribution, Range: tt.within}}
			choice, err := Choose(testCatalog(), env, Options{Bounds: BoundsStrict})
			if err != nil {
				t.Fatal(err)
			}
			if choice.Release.Version != tt.release {
				t.Errorf("release %s, want %s", choice.Release.Version, tt.release)
			}
			selected := slices.ContainsFunc(choice.Selected, func(s Selection) bool { return s.Name == "flask" })
			if selected != tt.selected {
				t.Errorf("flask selected: %t, want %t; %+v", selected, tt.selected, choice.LeftOut)
			}
			if tt.refused != "" && (len(choice.Refused) == 0 || !strings.Contains(choice.Refused[0].Reasons()[0], tt.refused)) {
				t.Errorf("refused %+v, want %q", choice.Refused, tt.refused)
			}
		})
	}
}
