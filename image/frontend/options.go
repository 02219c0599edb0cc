package frontend

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/distribution/reference"
	"github.com/spf13/pflag"

	"github.com/imgwrap/imgwrap/image"
	"github.com/imgwrap/imgwrap/image/instrument"
)

// argPrefix begins the names of the frontend's own options: build arguments.
const argPrefix = "build-arg:IMGWRAP_"

// options are what the user decides about a build.
type options struct {
	image   image.Options
	layers  reference.Named // repository
	disable bool

	repository string // layers as given
}

// An optionError is a build argument that makes no sense.
type optionError struct{ problem, remedy string }

func (e *optionError) Error() string { return e.problem }
func (e *optionError) Hint() string  { return e.remedy }

// flags are the options that the command line has too, by the names of its flags,
// and those of the frontend alone.
func (o *options) flags() *pflag.FlagSet {
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	i, s := &o.image, &o.image.Settings
	for name, value := range map[string]*string{
		"python":           &i.Python,
		"release":          &i.Instrument.Release,
		"bounds":           (*string)(&i.Instrument.Bounds),
		"layers":           &o.repository,
		"endpoint":         &s.Endpoint,
		"protocol":         &s.Protocol,
		"traces-exporter":  &s.TracesExporter,
		"metrics-exporter": &s.MetricsExporter,
		"logs-exporter":    &s.LogsExporter,
		"service-name":     &s.ServiceName,
		"application":      &s.Application,
		"propagators":      &s.Propagators,
		"log-correlation":  &s.LogCorrelation,
		"syntax":           new(string), // see delegate
	} {
		flags.StringVar(value, name, "", "")
	}
	for name, value := range map[string]*[]string{
		"instrument":         &i.Instrument.Instrument,
		"without":            &i.Instrument.Without,
		"allow-conflict":     &i.Instrument.AllowConflict,
		"platform":           &i.Platforms,
		"resource-attribute": &s.ResourceAttributes,
	} {
		flags.StringSliceVar(value, name, nil, "")
	}
	flags.StringSlice("activate", []string{string(image.ByEntrypoint)}, "")
	flags.BoolVar(&i.Native, "native", true, "")
	flags.BoolVar(&i.SkipUnsupported, "skip-unsupported", false, "")
	flags.BoolVar(&o.disable, "disable", false, "")
	return flags
}

// Options are the names of the build arguments that the frontend reads.
func Options() []string {
	var names []string
	new(options).flags().VisitAll(func(f *pflag.Flag) { names = append(names, argument(f.Name)) })
	return names
}

// argument is the build argument for a flag of the command line.
func argument(flag string) string {
	return "IMGWRAP_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// options are those of a build.
func (f *Frontend) options(opts map[string]string) (options, error) {
	o, err := parseOptions(opts)
	if err != nil || o.disable {
		return o, err
	}
	o.image.Version = f.Version
	repository := cmp.Or(o.repository, f.Layers)
	if repository == "" {
		return o, &optionError{
			"no repository to take OpenTelemetry's layers from",
			"push them with `imgwrap layer push REPOSITORY`, and build with --build-arg IMGWRAP_LAYERS=REPOSITORY",
		}
	}
	o.layers, err = reference.ParseNormalizedNamed(repository)
	if err != nil || !reference.IsNameOnly(o.layers) {
		return o, &optionError{
			fmt.Sprintf("IMGWRAP_LAYERS=%s is not a repository", repository),
			"give one without tag or digest, such as registry.example.com/otel",
		}
	}
	return o, nil
}

// parseOptions reads the build arguments.
func parseOptions(opts map[string]string) (options, error) {
	var o options
	flags := o.flags()
	for _, key := range slices.Sorted(maps.Keys(opts)) {
		name, ok := strings.CutPrefix(key, argPrefix)
		value := opts[key]
		if !ok || value == "" { // as with an ARG that has no default
			continue
		}
		flag := flags.Lookup(strings.ToLower(strings.ReplaceAll(name, "_", "-")))
		if flag == nil || argument(flag.Name) != "IMGWRAP_"+name {
			return options{}, &optionError{"no build argument IMGWRAP_" + name + " is known", "there are " + strings.Join(Options(), ", ")}
		}
		if err := flags.Set(flag.Name, value); err != nil {
			return options{}, &optionError{fmt.Sprintf("IMGWRAP_%s=%s is not a %s", name, value, flag.Value.Type()), ""}
		}
	}
	if b := o.image.Instrument.Bounds; !slices.Contains([]instrument.Bounds{instrument.BoundsAuto, instrument.BoundsStrict, instrument.BoundsProven}, b) {
		return options{}, &optionError{fmt.Sprintf("IMGWRAP_BOUNDS=%s", b), "use strict or proven"}
	}
	ways, err := flags.GetStringSlice("activate")
	if err != nil {
		return options{}, err
	}
	for _, way := range ways {
		a := image.Activation(way)
		if a != image.ByEntrypoint && a != image.ByEnvironment {
			return options{}, &optionError{"IMGWRAP_ACTIVATE=" + way, "use entrypoint, environment or entrypoint,environment"}
		}
		o.image.Activate = append(o.image.Activate, a)
	}
	if text := o.image.Settings.LogCorrelation; text != "" {
		on, err := strconv.ParseBool(text)
		if err != nil {
			return options{}, &optionError{fmt.Sprintf("IMGWRAP_LOG_CORRELATION=%s is not a bool", text), ""}
		}
		o.image.Settings.LogCorrelation = strconv.FormatBool(on)
	}
	return o, nil
}

var commandFlag = regexp.MustCompile(`--[a-z][a-z-]*[a-z]`)

// inArguments says with build arguments what is said with the flags of the
// command line.
func inArguments(text string) string {
	flags := new(options).flags()
	return commandFlag.ReplaceAllStringFunc(text, func(flag string) string {
		name := strings.TrimPrefix(flag, "--")
		if flags.Lookup(name) == nil {
			return flag
		}
		return argument(name)
	})
}

// explain is an error for the user of a build, with what to do about it.
func explain(err error) error {
	text := err.Error()
	var hint interface{ Hint() string }
	if errors.As(err, &hint) && hint.Hint() != "" {
		text += "; " + hint.Hint()
	}
	return errors.New("imgwrap: " + inArguments(text))
}

func firstWord(text string) string {
	word, _, _ := strings.Cut(strings.TrimSpace(text), " ")
	return word
}
