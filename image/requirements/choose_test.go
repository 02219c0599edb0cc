package requirements

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/imgwrap/imgwrap/image/instrument"
	"github.com/imgwrap/imgwrap/layer/catalog"
	"github.com/imgwrap/imgwrap/layer/pep508"
)

// versions are packages as name==version, without the instrumentations that every
// project gets.
func versions(pkgs []Package, r *catalog.Release) string {
	always := map[string]bool{}
	for _, i := range r.Instrumentations {
		always[i.Distribution] = i.Always
	}
	var list []string
	for _, p := range pkgs {
		if !always[p.Name] {
			list = append(list, strings.TrimPrefix(p.Name, "opentelemetry-")+"=="+p.Version)
		}
	}
	return strings.Join(list, " ")
}

func TestChoose(t *testing.T) {
	c := loadCatalog(t)
	for _, tt := range []struct {
		name, files string
		opts        Options
		want        string
		leftOut     string // name: part of the reason
		notes       string // part of notes and warnings
	}{
		{
			name: "what is pinned", files: "-- requirements.txt --\nFlask==3.0.3\nprotobuf==6.33.0\nredis==5.2.1\n-- .python-version --\n3.12\n",
			want: "distro==0.66b1 exporter-otlp-proto-http==1.45.1 instrumentation-flask==0.66b1 instrumentation-redis==0.66b1",
		},
		{
			name: "what is asked for", files: "-- requirements.txt --\nFlask>=2\nprotobuf<5\n-- .python-version --\n3.11\n",
			want:  "distro==0.48b0 exporter-otlp-proto-http==1.27.0 instrumentation-flask==0.48b0 setuptools==75.3.4",
			notes: "nothing is locked",
		},
		{
			name: "setuptools of its own", files: "-- requirements.txt --\nprotobuf==4.25.5\nsetuptools==80.9.0\n-- .python-version --\n3.11\n",
			want: "distro==0.48b0 exporter-otlp-proto-http==1.27.0",
		},
		{
			name: "a version that no instrumentation knows", files: "-- requirements.txt --\nflask==0.12\n-- .python-version --\n3.11\n",
			want: "distro==0.66b1 exporter-otlp-proto-http==1.45.1", leftOut: "flask: flask 0.12 is installed",
		},
		{
			name: "OpenTelemetry of its own", files: "-- requirements.txt --\nopentelemetry-distro==0.50b0\nopentelemetry-sdk==1.29.0\nflask==3.0.3\n-- .python-version --\n3.11\n",
			want: "exporter-otlp-proto-http==1.29.0 instrumentation-flask==0.50b0", notes: "requires opentelemetry-distro itself",
		},
		{
			name: "OpenTelemetry of its own, unpinned", files: "-- requirements.txt --\nopentelemetry-exporter-otlp-proto-http\nopentelemetry-instrumentation-flask<0.60b0\nflask\n-- .python-version --\n3.11\n",
			want: "distro==0.59b0",
		},
		{
			name: "propagators", files: "-- requirements.txt --\nredis==5\n-- .python-version --\n3.11\n",
			opts: Options{Propagators: "xray,b3, b3multi,jaeger,ottrace,tracecontext,baggage", Instrument: instrument.Options{Without: []string{"redis"}}},
			want: "distro==0.66b1 exporter-otlp-proto-http==1.45.1 propagator-aws-xray==1.0.2 propagator-b3==1.45.1 propagator-jaeger==1.45.1 propagator-ot-trace==0.66b1",
		},
		{
			name: "an old Python, a release of choice", files: "-- requirements.txt --\nflask==2.3.2\n-- runtime.txt --\npython-3.8.2\n",
			opts: Options{Propagators: "b3", Instrument: instrument.Options{Release: "0.38b0", Instrument: []string{"redis"}}},
			want: "distro==0.38b0 exporter-otlp-proto-http==1.17.0 propagator-b3==1.17.0 instrumentation-flask==0.38b0 instrumentation-redis==0.38b0 setuptools==68.0.0",
		},
		{
			name: "no Python", files: "-- requirements.txt --\nflask==3.0.3\n",
			want: "distro==0.66b1 exporter-otlp-proto-http==1.45.1 instrumentation-flask==0.66b1", notes: "no file says which Python",
		},
		{
			name: "only constraints, only development", files: "-- requirements.txt --\n-c c.txt\nredis==5\n-- c.txt --\nflask==3.0.3\nredis<6\n-- .python-version --\n3.11\n",
			want: "distro==0.66b1 exporter-otlp-proto-http==1.45.1 instrumentation-redis==0.66b1", leftOut: "flask: there is only a constraint",
		},
		{
			name: "a constraint counts", files: "-- requirements.txt --\n-c c.txt\nredis==5\n-- c.txt --\nprotobuf==4.25.5\n-- .python-version --\n3.11\n",
			want: "distro==0.48b0 exporter-otlp-proto-http==1.27.0 instrumentation-redis==0.48b0 setuptools==75.3.4",
		},
		{
			name: "a newer Python than the lowest", files: "-- pyproject.toml --\n[project]\nname=\"x\"\nrequires-python=\">=3.8\"\ndependencies=[\"flask\"]\n",
			opts: Options{Python: "3.12"},
			want: "distro==0.66b1 exporter-otlp-proto-http==1.45.1 instrumentation-flask==0.66b1",
		},
		{
			name: "a development group", files: "-- pyproject.toml --\n[project]\nname=\"x\"\nrequires-python=\">=3.11\"\ndependencies=[\"flask\"]\n[dependency-groups]\ndev=[\"protobuf<5\",\"redis\"]\n",
			want:    "distro==0.48b0 exporter-otlp-proto-http==1.27.0 instrumentation-flask==0.48b0 setuptools==75.3.4",
			leftOut: "redis: redis: it is there for development only",
		},
		{
			name: "a development group of Poetry", files: "-- pyproject.toml --\n[tool.poetry.dependencies]\npython=\"^3.11\"\nflask=\"*\"\n[tool.poetry.group.dev.dependencies]\nprotobuf=\"<5\"\n",
			want: "distro==0.48b0 exporter-otlp-proto-http==1.27.0 instrumentation-flask==0.48b0 setuptools==75.3.4",
		},
		{
			name: "OpenTelemetry for development", files: "-- pyproject.toml --\n[tool.poetry.dependencies]\npython=\"^3.11\"\nflask=\"*\"\n[tool.poetry.group.dev.dependencies]\nopentelemetry-distro=\"0.50b0\"\n",
			want: "distro==0.50b0 exporter-otlp-proto-http==1.29.0 instrumentation-flask==0.50b0",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := ReadFor(unpack(t, txtar.Parse([]byte(tt.files))), "", tt.opts.Python)
			if err != nil {
				t.Fatal(err)
			}
			choice, err := p.Choose(c, tt.opts)
			if err != nil {
				t.Fatal(err)
			}
			if got := versions(choice.Packages, choice.Release); got != tt.want {
				t.Errorf("got\n%s, want\n%s", got, tt.want)
			}
			name, reason, _ := strings.Cut(tt.leftOut, ": ")
			if tt.leftOut != "" && !slices.ContainsFunc(choice.LeftOut, func(l instrument.LeftOut) bool { return l.Name == name && strings.Contains(l.Reason, reason) }) {
				t.Errorf("left out %v, want %s", choice.LeftOut, tt.leftOut)
			}
			if notes := strings.Join(slices.Concat(choice.Notes, choice.Warnings), "\n"); !strings.Contains(notes, tt.notes) {
				t.Errorf("notes %s, want %s", notes, tt.notes)
			}
			for _, pkg := range choice.Packages {
				if pkg.Reason == "" {
					t.Errorf("no reason for %s", pkg.Name)
				}
			}
		})
	}
}

func TestChooseRefuses(t *testing.T) {
	c := loadCatalog(t)
	read := func(requirements string) *Project {
		p, err := Read(unpack(t, txtar.Parse([]byte("-- requirements.txt --\n"+requirements+"\n-- .python-version --\n3.11\n"))))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	_, err := read("typing-extensions==3.7.4").Choose(c, Options{Instrument: instrument.Options{Release: "1.45.1"}})
	var conflict *ConflictError
	if !errors.As(err, &conflict) || !strings.Contains(err.Error(), "requires typing-extensions>=4.5.0, the project has typing-extensions 3.7.4") || strings.Contains(conflict.Hint(), "image") {
		t.Errorf("%v", err)
	}
	if _, err := read("opentelemetry-api==1.99.0").Choose(c, Options{}); !errors.As(err, &conflict) || !strings.Contains(err.Error(), "opentelemetry-api") {
		t.Errorf("%v", err)
	}
	var propagator *UnknownPropagatorError
	if _, err := read("flask").Choose(c, Options{Propagators: "b4"}); !errors.As(err, &propagator) || !strings.Contains(propagator.Hint(), "b3multi") {
		t.Errorf("%v", err)
	}
	var unknown *instrument.UnknownInstrumentationError
	if _, err := read("flask").Choose(c, Options{Instrument: instrument.Options{Without: []string{"flsk"}}}); !errors.As(err, &unknown) {
		t.Errorf("%v", err)
	}
}

// TestClosure checks that what is added in hash mode is closed: everything that a
// package in it requires, on any Python from the lowest on, is there with a
// version that satisfies it.
func TestClosure(t *testing.T) {
	c := loadCatalog(t)
	p, err := Read(layout(t, "compiled"))
	if err != nil {
		t.Fatal(err)
	}
	for _, release := range []string{"", "1.27.0", "1.17.0"} {
		choice, err := p.Choose(c, Options{Propagators: "b3", Instrument: instrument.Options{Release: release}})
		if err != nil {
			t.Fatal(err)
		}
		there := map[string]string{"click": "8.1.7", "flask": "3.0.3"}
		for _, pkg := range choice.Closure {
			if there[pkg.Name] != "" {
				t.Errorf("%s: %s is there twice", choice.Release, pkg.Name)
			}
			there[pkg.Name] = pkg.Version
			if len(pkg.Hashes) == 0 || !strings.HasPrefix(pkg.Hashes[0], "sha256:") || len(pkg.Hashes[0]) != 71 {
				t.Errorf("%s: hashes of %s: %v", choice.Release, pkg.Name, pkg.Hashes)
			}
		}
		for _, pkg := range choice.Closure {
			d, _ := find(choice.Release, pkg.Name)
			for _, line := range d.Requires {
				req, err := pep508.Parse(line)
				if err != nil {
					t.Fatal(err)
				}
				for _, python := range []string{"3.10", "3.11", "3.12", "3.13"} {
					if name := pep508.Normalize(req.Name); req.Applies(pep508.Linux(python, "x86_64")) && there[name] == "" {
						t.Errorf("%s: %s requires %s on Python %s", choice.Release, pkg.Name, line, python)
					}
				}
			}
		}
		if there["opentelemetry-propagator-b3"] == "" || there["opentelemetry-propagator-jaeger"] != "" {
			t.Errorf("%s: propagators: %v", choice.Release, there)
		}
	}
}
