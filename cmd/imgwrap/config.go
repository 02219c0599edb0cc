package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// configure gives the flags that the command line leaves alone the values that
// the file of --config has for them. One file may serve several commands: what is
// a flag of another command is passed over.
func (a *app) configure(cmd *cobra.Command) error {
	if a.config == "" {
		return nil
	}
	content, err := os.ReadFile(a.config)
	if err != nil {
		return &usageError{fmt.Sprintf("reading --config: %v", err), "name a file that can be read"}
	}
	settings, err := parseConfig(a.config, content)
	if err != nil {
		return err
	}
	for _, s := range settings {
		f := cmd.Flags().Lookup(s.name)
		switch {
		case s.name == "config" || s.name == "help" || f == nil && !known(cmd.Root(), s.name):
			return &usageError{fmt.Sprintf("%s:%d: there is no flag --%s to set", a.config, s.line, s.name), "see imgwrap --help"}
		case f == nil || f.Changed:
			continue
		}
		if err := setFlag(cmd.Flags(), s.name, s.values); err != nil {
			return &usageError{fmt.Sprintf("%s:%d: %v", a.config, s.line, err), "write it as on the command line, lists as YAML's"}
		}
		a.configured = append(a.configured, s.name)
	}
	return nil
}

// known says whether a command, or one below it, has a flag.
func known(cmd *cobra.Command, name string) bool {
	return cmp.Or(cmd.LocalFlags().Lookup(name), cmd.PersistentFlags().Lookup(name)) != nil ||
		slices.ContainsFunc(cmd.Commands(), func(c *cobra.Command) bool { return known(c, name) })
}

// setting is what a file says of a flag.
type setting struct {
	name   string
	values []string
	line   int
}

// parseConfig reads a YAML mapping of the names of flags to their values.
func parseConfig(file string, content []byte) ([]setting, error) {
	fail := func(line int, problem string) ([]setting, error) {
		return nil, &usageError{fmt.Sprintf("%s:%d: %s", file, line, problem), "write lines such as endpoint: http://collector:4318"}
	}
	var document yaml.Node
	if err := yaml.Unmarshal(content, &document); err != nil {
		return nil, &usageError{fmt.Sprintf("%s: %s", file, strings.TrimPrefix(err.Error(), "yaml: ")), "write YAML: lines such as endpoint: http://collector:4318"}
	}
	if len(document.Content) == 0 {
		return nil, nil
	}
	root := document.Content[0]
	if root.Kind != yaml.MappingNode {
		return fail(root.Line, "it is no mapping of flags to values")
	}
	var settings []setting
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		if slices.ContainsFunc(settings, func(s setting) bool { return s.name == key.Value }) {
			return fail(key.Line, fmt.Sprintf("%s is there twice", key.Value))
		}
		values, err := configValues(value)
		if err != nil {
			return fail(key.Line, fmt.Sprintf("%s: %v", key.Value, err))
		}
		settings = append(settings, setting{key.Value, values, key.Line})
	}
	return settings, nil
}

// configValues are those of a scalar, or of a list of them.
func configValues(n *yaml.Node) ([]string, error) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	nodes := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		nodes = n.Content
	}
	values := []string{}
	for _, n := range nodes {
		if n.Kind == yaml.AliasNode {
			n = n.Alias
		}
		switch {
		case n.Kind != yaml.ScalarNode:
			return nil, errors.New("it takes a value, or a list of values")
		case n.Tag == "!!null":
			return nil, errors.New("it has no value")
		}
		values = append(values, n.Value)
	}
	return values, nil
}

// setFlag gives a flag its values, in place of those it has.
func setFlag(flags *pflag.FlagSet, name string, values []string) error {
	f := flags.Lookup(name)
	if f == nil {
		return fmt.Errorf("there is no flag --%s", name)
	}
	list, isList := f.Value.(pflag.SliceValue)
	if !isList && len(values) != 1 {
		return fmt.Errorf("--%s takes one value", name)
	}
	if isList && len(values) != 1 {
		if err := flags.Set(name, ""); err != nil { // it counts as given
			return err
		}
		return list.Replace(values)
	}
	if isList {
		if err := list.Replace(nil); err != nil { // what it is set to next is all that it has
			return err
		}
	}
	return flags.Set(name, values[0])
}

// changedFlags are the values of the flags that were given, in the form that
// setFlag takes.
func changedFlags(flags *pflag.FlagSet) map[string][]string {
	changed := map[string][]string{}
	flags.VisitAll(func(f *pflag.Flag) {
		if !f.Changed {
			return
		}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			changed[f.Name] = list.GetSlice()
			return
		}
		changed[f.Name] = []string{f.Value.String()}
	})
	return changed
}
