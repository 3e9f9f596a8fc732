//! From a struct's definition to its `Plain` or `Share`: what the macro can see is refused here; what only the compiler knows (sizes,
//! offsets, whether a field is `Plain`) becomes assertions and bounds of the expansion.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Data, DataStruct, DeriveInput, Error, Field, Member, Path, Result};

/// The trait that is derived: what it is called, and its attribute.
pub(crate) struct Trait {
    name: &'static str,
    attribute: &'static str,
}

pub(crate) const PLAIN: Trait = Trait { name: "Plain", attribute: "plain" };
pub(crate) const SHARE: Trait = Trait { name: "Share", attribute: "share" };

/// The implementation of `derived` for `input`, with the assertions that make it sound.
pub(crate) fn expand(derived: &Trait, input: &DeriveInput, default_core: Path) -> Result<TokenStream> {
    let data = struct_of(derived, input)?;
    check_repr(derived, input, data)?;
    check_generics(derived, input)?;
    let core = path_to_core(derived, input, default_core)?;
    let marker = format_ident!("{}", derived.name);

    let ident = &input.ident;
    let name = ident.unraw().to_string();
    let members: Vec<Member> = data.fields.members().collect();
    let types: Vec<_> = data.fields.iter().map(|field| &field.ty).collect();
    let hashed = data.fields.iter().zip(&members).map(|(Field { ty, .. }, member)| {
        let field = name_of(member);
        // The field's span, so that a field that lacks the trait is what the error points at.
        let fingerprint = quote_spanned!(ty.span()=> <#ty as #core::#marker>::FINGERPRINT);
        quote!(.field(#field, ::core::mem::offset_of!(#ident, #member), #fingerprint))
    });
    let gaps = gap_checks(ident, data, &members);

    Ok(quote! {
        const _: () = {
            #(#gaps)*

            // The struct that is compiled has these fields and no others, whatever other macros did to it.
            #[allow(dead_code)]
            const fn all_fields(value: #ident) {
                let #ident { #(#members: _,)* } = value;
                #(let _: #types = value.#members;)*
            }

            // SAFETY:
            // - each field has the trait: its bound is checked where its fingerprint is read;
            // - no padding: the assertions above; no other fields: the pattern above;
            // - the name and every field's name, offset and fingerprint are hashed.
            #[automatically_derived]
            unsafe impl #core::#marker for #ident {
                const FINGERPRINT: u64 = #core::plain::Fingerprint::of_struct(
                    #name,
                    ::core::mem::size_of::<#ident>(),
                    ::core::mem::align_of::<#ident>(),
                )
                #(#hashed)*
                .finish();
            }
        };
    })
}

/// One assertion per place where a gap can be: before each field, and after the last.
fn gap_checks(ident: &syn::Ident, data: &DataStruct, members: &[Member]) -> Vec<TokenStream> {
    let mut end = quote!(0);
    let mut checks = Vec::new();
    for (Field { ty, .. }, member) in data.fields.iter().zip(members) {
        let message = format!("padding before field `{}` of `{}`", name_of(member), ident.unraw());
        let offset = quote!(::core::mem::offset_of!(#ident, #member));
        checks.push(quote_spanned!(ty.span()=> ::core::assert!(#offset == #end, #message);));
        end = quote!(#offset + ::core::mem::size_of::<#ty>());
    }
    let message = match members.last() {
        Some(member) => format!("padding after field `{}` of `{}`", name_of(member), ident.unraw()),
        None => format!("`{}` has no field, so all its bytes are padding", ident.unraw()),
    };
    let span = data.fields.iter().next_back().map_or(ident.span(), |field| field.ty.span());
    checks.push(quote_spanned!(span=> ::core::assert!(::core::mem::size_of::<#ident>() == #end, #message);));
    checks
}

fn name_of(member: &Member) -> String {
    match member {
        Member::Named(name) => name.unraw().to_string(),
        Member::Unnamed(index) => index.index.to_string(),
    }
}

fn struct_of<'a>(derived: &Trait, input: &'a DeriveInput) -> Result<&'a DataStruct> {
    let name = derived.name;
    match &input.data {
        Data::Struct(data) => Ok(data),
        Data::Enum(data) => Err(Error::new(
            data.enum_token.span,
            format!(
                "an enum is not `{name}`: another process may write bits that are no variant; share an integer and \
                 convert it"
            ),
        )),
        Data::Union(data) => Err(Error::new(
            data.union_token.span,
            format!("a union is not `{name}`: its bytes have no one meaning; share an array of bytes and convert it"),
        )),
    }
}

fn check_repr(derived: &Trait, input: &DeriveInput, data: &DataStruct) -> Result<()> {
    let name = derived.name;
    let (mut c, mut transparent) = (false, false);
    for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("repr")) {
        attribute.parse_nested_meta(|meta| {
            c |= meta.path.is_ident("C");
            transparent |= meta.path.is_ident("transparent");
            // `align(n)` and `packed(n)` bring an argument; what they do to the layout is asserted, not assumed.
            if meta.input.peek(syn::token::Paren) {
                let argument;
                syn::parenthesized!(argument in meta.input);
                argument.parse::<TokenStream>()?;
            }
            Ok(())
        })?;
    }
    if c || (transparent && data.fields.len() == 1) {
        return Ok(());
    }
    let message = if transparent {
        format!("`#[repr(transparent)]` is `{name}` around exactly one field")
    } else {
        format!("`{name}` needs `#[repr(C)]`: without it two builds may order the fields differently")
    };
    Err(Error::new(input.ident.span(), message))
}

fn check_generics(derived: &Trait, input: &DeriveInput) -> Result<()> {
    let name = derived.name;
    if input.generics.params.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        input.generics.span(),
        format!(
            "`{name}` cannot be derived for a generic struct: whether it has padding depends on the parameters; write one \
             struct per type"
        ),
    ))
}

fn path_to_core(derived: &Trait, input: &DeriveInput, default: Path) -> Result<Path> {
    let mut core = default;
    for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident(derived.attribute)) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("crate") {
                return Err(meta.error("expected `crate = path`"));
            }
            core = meta.value()?.parse()?;
            Ok(())
        })?;
    }
    Ok(core)
}
