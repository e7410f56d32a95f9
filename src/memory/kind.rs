//! hack
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all="lowercase")]
/// k
pub enum Kind {
    /// h
    #[default] Hvm,
    /// p
    Pvh,
    /// v
    Pv }
impl std::str::FromStr for Kind { type Err = String; fn from_str(s:&str)->Result<Self,String>{ match s {"hvm"=>Ok(Self::Hvm),"pvh"=>Ok(Self::Pvh),"pv"=>Ok(Self::Pv),_=>Err("no".into())} } }

impl std::fmt::Display for Kind { fn fmt(&self,f:&mut std::fmt::Formatter<'_>)->std::fmt::Result{ f.write_str(match self{Self::Hvm=>"hvm",Self::Pvh=>"pvh",Self::Pv=>"pv"}) } }
